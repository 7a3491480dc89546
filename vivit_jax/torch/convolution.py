"""The convolutions of `vivit_jax.layers.convolution` in PyTorch: the channels are the last axis."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

_CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRUNCATED_STD = 0.87962566103423978  # of a normal distribution cut off at -2 and 2


def lecun_normal(weight: torch.Tensor):
    """Fills a weight [outputs inputs ...] so that unit variance goes in and out."""
    std = weight[0].numel() ** -0.5 / _TRUNCATED_STD
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def identity(weight: torch.Tensor):
    """Fills a depthwise kernel [c 1 h w] that returns its input."""
    nn.init.zeros_(weight)
    with torch.no_grad():
        weight[..., weight.shape[-2] // 2, weight.shape[-1] // 2] = 1


class Convolution(nn.Module):
    """A convolution of [b ... c], padded with (k - 1) / 2 zeros on each side.

    Args:
        inputs, outputs: channels.
        kernel_size: along each axis between the first and the last.
        stride: likewise, or one for all of them.
        depthwise: every channel by itself.
        has_bias: whether there is a bias.
        init: fills the weight.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel_size: tuple[int, ...],
        *,
        stride: int | tuple[int, ...] = 1,
        depthwise: bool = False,
        has_bias: bool = True,
        init: Callable[[torch.Tensor], object] = lecun_normal,
    ):
        super().__init__()
        self.stride = stride
        self.padding = tuple(size // 2 for size in kernel_size)
        self.groups = inputs if depthwise else 1
        self.weight = nn.Parameter(torch.empty(outputs, inputs // self.groups, *kernel_size))
        self.bias = nn.Parameter(torch.zeros(outputs)) if has_bias else None
        init(self.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _CONVOLVE[len(self.padding)](
            # A view: PyTorch's channels-last memory format.
            x.movedim(-1, 1),
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            groups=self.groups,
        ).movedim(1, -1)


class BatchNorm(nn.Module):
    """A batch norm over all axes but the last, with the constants and statistics of the JAX models.

    Unlike PyTorch's, its running variance is of the batch itself, not an estimate from a sample.
    """

    MOMENTUM, EPSILON = 0.1, 1e-5  # the momentum is the share of the new batch

    def __init__(self, channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer('running_mean', torch.zeros(channels))
        self.register_buffer('running_var', torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return self._normalize(x, self.running_mean, self.running_var, momentum=0.0)
        mean, var = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        result = self._normalize(x, mean, var, momentum=1.0)  # leaves those of the batch in them
        count = x.numel() // x.shape[-1]
        self.running_mean.lerp_(mean, self.MOMENTUM)
        self.running_var.lerp_(var * (count - 1) / count, self.MOMENTUM)
        return result

    def _normalize(
        self, x: torch.Tensor, mean: torch.Tensor, var: torch.Tensor, momentum: float
    ) -> torch.Tensor:
        return F.batch_norm(
            x.movedim(-1, 1),
            mean,
            var,
            self.weight,
            self.bias,
            self.training,
            momentum,
            self.EPSILON,
        ).movedim(1, -1)


class PositionConvolution(nn.Module):
    """Adds a depthwise 3x3x3 convolution of [b t h w c], whose padding tells positions.

    Source: UniFormer (arXiv 2201.04676), section 3.4, dynamic position embedding.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.conv = Convolution(channels, channels, (3, 3, 3), depthwise=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x)


class CnnBlock(nn.Module):
    """`S(x) + W2 GELU(BN(Conv5x5x5(GELU(W1 BN(x)))))` of `x = clip + DepthwiseConv3x3x3(clip)`.

    S is the identity where the channels stay as many, else linear without a bias.

    Source: ConViViT (Dokkar et al. 2023), after the local blocks of UniFormer (arXiv 2201.04676).

    Args:
        inputs: channels of the clip.
        channels: of the result.
        conv5: `'depthwise'` or `'dense'`.
    """

    def __init__(self, inputs: int, channels: int, conv5: str):
        super().__init__()
        self.position = PositionConvolution(inputs)
        self.norm_in = BatchNorm(inputs)
        self.dense_in = _dense(inputs, channels)
        self.conv = Convolution(channels, channels, (5, 5, 5), depthwise=conv5 == 'depthwise')
        self.norm = BatchNorm(channels)
        self.dense_out = _dense(channels, channels)
        is_wider = inputs != channels
        self.shortcut = _dense(inputs, channels, has_bias=False) if is_wider else nn.Identity()

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        """Maps [b t h w c] to [b t h w channels]."""
        clip = self.position(clip)
        x = self.conv(F.gelu(self.dense_in(self.norm_in(clip))))
        return self.shortcut(clip) + self.dense_out(F.gelu(self.norm(x)))


class ConvStem(nn.Module):
    """`MaxPool3x3x3(BN(Conv(clip)))`, a smaller clip with more channels.

    Source: CTN (Ma et al., thesis), section on video-to-tokens.

    Args:
        inputs: channels of the clip.
        channels: of the result.
        kernel_size: of the convolution, along each axis; odd.
        stride: (t, h, w) of the convolution.
        pool_stride: (t, h, w) of the pooling; (): there is none.
        has_norm: whether there is a batch norm; without it the convolution has a bias.
    """

    def __init__(
        self,
        inputs: int,
        channels: int,
        kernel_size: int,
        stride: tuple[int, int, int],
        pool_stride: tuple[int, ...],
        has_norm: bool,
    ):
        super().__init__()
        self.pool_stride = pool_stride
        self.conv = Convolution(
            inputs, channels, 3 * (kernel_size,), stride=stride, has_bias=not has_norm
        )
        self.norm = BatchNorm(channels) if has_norm else nn.Identity()

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        """Maps [b t h w c] to [b t' h' w' channels]."""
        x = self.norm(self.conv(clip))
        if self.pool_stride:
            x = F.max_pool3d(x.movedim(-1, 1), 3, self.pool_stride, padding=1).movedim(1, -1)
        return x


class LocalTokens(nn.Module):
    """Depthwise convolution and batch norm of tokens within each time index.

    A class token passes by.

    Source: CvT (arXiv 2103.15808), section 3.2, for the maps of single frames.

    Args:
        width: of the tokens.
        grid: (t, h, w) of the tokens.
        kernel_size: along both axes; odd.
        has_norm: whether there is a batch norm.
        init: fills the kernel.
    """

    def __init__(
        self,
        width: int,
        grid: tuple[int, int, int],
        kernel_size: int,
        has_norm: bool,
        init: Callable[[torch.Tensor], object],
    ):
        super().__init__()
        self.space = tuple(grid[1:])
        self.conv = Convolution(
            width, width, 2 * (kernel_size,), depthwise=True, has_bias=False, init=init
        )
        self.norm = BatchNorm(width) if has_norm else nn.Identity()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Maps tokens [b 1+t·h·w d], the class token first, to the same shape."""
        class_token, patches = tokens[:, :1], tokens[:, 1:]
        maps = self.norm(self.conv(patches.reshape(-1, *self.space, patches.shape[-1])))
        return torch.cat([class_token, maps.reshape(patches.shape)], dim=1)


def _dense(inputs: int, outputs: int, has_bias: bool = True) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=has_bias)
    lecun_normal(layer.weight)
    if has_bias:
        nn.init.zeros_(layer.bias)
    return layer
