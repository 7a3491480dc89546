"""`vivit_jax.models.f4d.attention` in PyTorch.

A module maps activations [b u t h w c] to a map between 0 and 1 that broadcasts to them.
"""

import functools

import torch
import torch.nn.functional as F
from torch import nn

from vivit_jax.layers.torch.convolution import Convolution, lecun_normal
from vivit_jax.models.f4d import specification

he_normal = functools.partial(lecun_normal, scale=2.0)


def _average(weight: torch.Tensor):
    """Fills a weight [1 c ...] with random numbers that are not negative and sum to about one."""
    nn.init.uniform_(weight, 0, 2 / weight.numel())


class Attention(nn.Module):
    """Multiplies activations by the maps of `spec.attention`.

    F4D's own modules also add their input: `x·map + x`.
    """

    def __init__(self, spec: specification.F4d, channels: int):
        super().__init__()
        make_channel_map = functools.partial(ChannelMap, channels, channels // spec.reduction)
        makers = {
            'ta': {'ta': TemporalMap},
            'ca': {'ca': make_channel_map},
            'sta': {'sta': SpatioTemporalMap},
            'se': {'se': functools.partial(make_channel_map, has_max=False)},
            'cbam': {'cbam_channel': make_channel_map, 'cbam_space': SpatialMap},
        }
        for attention in spec.attention:
            for name, make in makers[attention].items():
                self.add_module(name, make())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for name, module in self.named_children():
            adds_input = name in ('ta', 'ca', 'sta')
            x = x * module(x) + x if adds_input else x * module(x)
        return x


class TemporalMap(nn.Module):
    """`σ(c2(s) + c3(s))` of the frames of all units, with s the mean plus the maximum of a frame.

    c2 and c3 are convolutions of three frames with dilations of 2 and 3; the frames of the units
    follow one another.
    """

    def __init__(self):
        super().__init__()
        self.conv2, self.conv3 = _dilated(1, (3,))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, units, time = x.shape[:3]
        frames = x.mean(dim=(3, 4, 5)) + x.amax(dim=(3, 4, 5))
        frames = frames.reshape(batch, units * time, 1)
        frames = self.conv2(frames) + self.conv3(frames)
        return frames.sigmoid().reshape(batch, units, time, 1, 1, 1)


class ChannelMap(nn.Module):
    """`σ(f(mean) + f(max))` over the positions of a unit, `f(x) = W1 ReLU(W0 x)`.

    Source: CBAM (arXiv 1807.06521), section 3.1; without the maximum: Squeeze-and-Excitation
    Networks (arXiv 1709.01507), section 3.
    """

    def __init__(self, channels: int, hidden: int, has_max: bool = True):
        super().__init__()
        self.has_max = has_max
        self.dense_in = nn.Linear(channels, hidden, bias=False)
        self.dense_out = nn.Linear(hidden, channels, bias=False)
        he_normal(self.dense_in.weight)
        he_normal(self.dense_out.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        axes = {'dim': (2, 3, 4), 'keepdim': True}
        pooled = [x.mean(**axes), x.amax(**axes)] if self.has_max else [x.mean(**axes)]
        return sum(self.dense_out(F.relu(self.dense_in(values))) for values in pooled).sigmoid()


class SpatioTemporalMap(nn.Module):
    """`σ(e2(g) + e3(g))`, `g = ReLU(a2(m) + a3(m))`, with m the mean and maximum of the channels.

    a2 and a3 are 1x3x3 convolutions, e2 and e3 are 3x1x1 convolutions, with dilations of 2 and 3.
    """

    def __init__(self):
        super().__init__()
        self.space_conv2, self.space_conv3 = _dilated(2, (1, 3, 3), _average)
        self.time_conv2, self.time_conv3 = _dilated(1, (3, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = _pool_channels(x).flatten(0, 1)
        hidden = F.relu(self.space_conv2(pooled) + self.space_conv3(pooled))
        result = self.time_conv2(hidden) + self.time_conv3(hidden)
        return result.sigmoid().unflatten(0, x.shape[:2])


class SpatialMap(nn.Module):
    """`σ(Conv7x7(m))` of each frame, with m the mean and the maximum of the channels.

    Source: CBAM (arXiv 1807.06521), section 3.2.
    """

    def __init__(self):
        super().__init__()
        self.conv = Convolution(2, 1, (1, 7, 7), has_bias=False, init=he_normal)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(_pool_channels(x).flatten(0, 1)).sigmoid().unflatten(0, x.shape[:2])


def _pool_channels(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([x.mean(dim=-1), x.amax(dim=-1)], dim=-1)


def _dilated(inputs: int, kernel_size: tuple[int, ...], init=he_normal) -> list[Convolution]:
    """Two convolutions to one channel, with dilations of 2 and 3."""
    return [Convolution(inputs, 1, kernel_size, dilation=rate, init=init) for rate in (2, 3)]
