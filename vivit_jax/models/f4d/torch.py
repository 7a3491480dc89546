"""F4D and V4D in PyTorch: the models of `vivit_jax.models.f4d.model`.

All activations are [b u t h w c]: a video is u units of t frames.
"""

import functools

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from vivit_jax.layers.torch.convolution import BatchNorm, Convolution
from vivit_jax.layers.torch.tokens import VideoModel
from vivit_jax.models.f4d import specification
from vivit_jax.models.f4d.torch_attention import Attention, he_normal

_conv = functools.partial(Convolution, has_bias=False, init=he_normal)


class UnitNetwork(VideoModel):
    """I3D-S, a ResNet with some temporal convolutions, on each unit; blocks see all units.

    The logits are the mean over the units.

    Source: V4D (arXiv 2002.07442), section 3 and table 1.
    """

    def __init__(self, spec: specification.UnitNetwork, clip_shape: tuple[int, int, int]):
        super().__init__(spec, clip_shape)
        self.conv1 = _conv(spec.num_channels, spec.width, (1, 7, 7), stride=(1, 2, 2))
        self.norm1 = BatchNorm(spec.width)
        inputs = spec.width
        for stage, name in enumerate(specification.STAGES):
            bottlenecks = []
            for index in range(spec.stage_blocks[stage]):
                channels, stride = spec.width << stage, 2 if stage and not index else 1
                length = spec.temporal_kernels[stage]
                bottlenecks.append(Bottleneck(inputs, channels, length, stride))
                inputs = 4 * channels
            self.add_module(name, nn.ModuleList(bottlenecks))
        self.blocks = nn.ModuleDict(
            {name: self.make_block(channels) for name, channels in spec.block_channels.items()}
        )
        self.dropout = nn.Dropout(spec.dropout_rate)

    def make_block(self, channels: int) -> nn.Module:
        """A residual block over units, [b u t h w c] to [b u t h w c]."""
        raise NotImplementedError

    def encode(self, clip: torch.Tensor) -> torch.Tensor:
        clip = clip - torch.tensor(self.spec.pixel_mean, dtype=clip.dtype, device=clip.device)
        x = clip if clip.ndim == 6 else clip[:, None]
        x = F.relu(self.norm1(_each_unit(self.conv1, x)))
        if 'conv1' in self.blocks:
            x = self.blocks['conv1'](x)
        x = _each_unit(_pool, x)
        for stage, name in enumerate(specification.STAGES):
            places = self.spec.places(stage)
            for bottleneck, (place, has_block) in zip(getattr(self, name), places, strict=True):
                x = bottleneck(x)
                if has_block:
                    x = self.blocks[place](x)
        return self.dropout(x.mean(dim=(2, 3, 4))).mean(dim=1)


def _each_unit(function, x: torch.Tensor) -> torch.Tensor:
    """Applies a function of [b t h w c] to every unit of [b u t h w c]."""
    return function(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def _pool(x: torch.Tensor) -> torch.Tensor:
    return F.max_pool3d(x.movedim(-1, 1), (1, 3, 3), (1, 2, 2), (0, 1, 1)).movedim(1, -1)


class Bottleneck(nn.Module):
    """`ReLU(S(x) + BN(Conv1(ReLU(BN(Conv1x3x3(ReLU(BN(Convtx1x1(x)))))))))`.

    S is the identity if the shape stays the same, else a 1x1x1 convolution and a norm.

    Args:
        inputs: channels of the input.
        channels: channels in the middle; the result has four times as many.
        length: frames that the first convolution sees.
        stride: spatial stride of the second convolution.
    """

    def __init__(self, inputs: int, channels: int, length: int, stride: int):
        super().__init__()
        outputs, strides = 4 * channels, (1, stride, stride)
        self.conv1 = _conv(inputs, channels, (length, 1, 1))
        self.norm1 = BatchNorm(channels)
        self.conv2 = _conv(channels, channels, (1, 3, 3), stride=strides)
        self.norm2 = BatchNorm(channels)
        self.conv3 = _conv(channels, outputs, (1, 1, 1))
        self.norm3 = BatchNorm(outputs)
        self.shortcut = self.shortcut_norm = None
        if inputs != outputs or stride > 1:
            self.shortcut = _conv(inputs, outputs, (1, 1, 1), stride=strides)
            self.shortcut_norm = BatchNorm(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norm1(_each_unit(self.conv1, x)))
        y = F.relu(self.norm2(_each_unit(self.conv2, y)))
        y = self.norm3(_each_unit(self.conv3, y))
        if self.shortcut is not None:
            x = self.shortcut_norm(_each_unit(self.shortcut, x))
        return F.relu(x + y)


class F4d(UnitNetwork):
    """The network with (3+1)D blocks, whose convolution over four axes is factorized."""

    def make_block(self, channels: int) -> nn.Module:
        return FactorizedBlock(self.spec, channels)


class FactorizedBlock(nn.Module):
    """`x + Attention(Dropout(ReLU(BN(Conv_t(ReLU(BN(Conv_uhw(x))))))))`.

    Source: F4D (Al-Saad et al. 2024), section on the (3+1)D block.
    """

    def __init__(self, spec: specification.F4d, channels: int):
        super().__init__()
        units, time, height, width = spec.block_kernel
        hidden = spec.hidden_channels(channels)
        self.unit_conv = Convolution4d(channels, hidden, (units, 1, height, width))
        self.unit_norm = BatchNorm(hidden)
        self.time_conv = Convolution4d(hidden, channels, (1, time, 1, 1))
        self.time_norm = BatchNorm(channels)
        self.dropout = nn.Dropout(spec.block_dropout_rate)
        self.attention = Attention(spec, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = F.relu(self.unit_norm(self.unit_conv(x)))
        z = F.relu(self.time_norm(self.time_conv(z)))
        return x + self.attention(self.dropout(z))


class V4d(UnitNetwork):
    """The network with full convolutions over four axes."""

    def make_block(self, channels: int) -> nn.Module:
        return FullBlock(self.spec, channels)


class FullBlock(nn.Module):
    """`x + Conv_uthw(x)`.

    Source: V4D (arXiv 2002.07442), section 3.2; no norm and no activation, as in the public code.
    """

    def __init__(self, spec: specification.V4d, channels: int):
        super().__init__()
        self.conv = Convolution4d(channels, channels, spec.block_kernel)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x)


class Convolution4d(nn.Module):
    """A convolution of [b u t h w c] over units, time and space, padded with zeros, without bias.

    Where a kernel sees a single pixel, height and width are one axis of the convolution. Otherwise,
    the channels of all units that a unit depends on are joined first.

    Args:
        inputs, outputs: numbers of channels.
        kernel_size: (u, t, h, w), each odd.
    """

    def __init__(self, inputs: int, outputs: int, kernel_size: tuple[int, int, int, int]):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, *kernel_size))
        he_normal(self.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, units, time, height, width, _ = x.shape
        weight, shape = self.weight, (batch, units, time, height, width, -1)
        around = tuple(size // 2 for size in weight.shape[2:])
        if weight.shape[4:] == (1, 1):
            x = rearrange(x, 'b u t h w c -> b c u t (h w)')
            x = F.conv3d(x, weight[..., 0], padding=(*around[:2], 0))
            return x.movedim(1, -1).reshape(shape)
        x = F.pad(x, (*8 * [0], around[0], around[0]))
        x = torch.cat([x[:, i : i + units] for i in range(weight.shape[2])], dim=-1)
        weight = rearrange(weight, 'd c u t h w -> d (u c) t h w')
        x = F.conv3d(rearrange(x, 'b u t h w c -> (b u) c t h w'), weight, padding=around[1:])
        return x.movedim(1, -1).reshape(shape)
