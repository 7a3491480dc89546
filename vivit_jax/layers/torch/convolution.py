"""`vivit_jax.layers.convolution` in PyTorch; as there, the channels are the last axis."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

_CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRUNCATED_STD = 0.87962566103423978  # standard deviation of a normal truncated at -2 and 2


def lecun_normal(weight: torch.Tensor, scale: float = 1.0):
    """Fills a weight [outputs inputs ...] so that inputs of variance 1 become `scale`.

    A scale of 2, after which a ReLU keeps the mean square 1, is He's initialization.
    """
    std = (scale / weight[0].numel()) ** 0.5 / _TRUNCATED_STD
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def identity(weight: torch.Tensor):
    """Fills a depthwise kernel [c 1 h w] that returns its input."""
    nn.init.zeros_(weight)
    with torch.no_grad():
        weight[..., weight.shape[-2] // 2, weight.shape[-1] // 2] = 1


class Convolution(nn.Module):
    """A convolution of [b ... c], padded with (k - 1) / 2 zeros on each side.

    Args:
        inputs, outputs: numbers of channels.
        kernel_size: size along each axis between the first and the last.
        stride: stride along each of these axes, or one stride for all of them.
        depthwise: whether every channel is convolved by itself.
        dilation: distance of the kernel's taps; they are padded with as many times more zeros.
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
        dilation: int = 1,
        has_bias: bool = True,
        init: Callable[[torch.Tensor], object] = lecun_normal,
    ):
        super().__init__()
        self.stride = stride
        self.dilation = dilation
        self.padding = tuple(size // 2 * dilation for size in kernel_size)
        self.groups = inputs if depthwise else 1
        self.weight = nn.Parameter(torch.empty(outputs, inputs // self.groups, *kernel_size))
        self.bias = nn.Parameter(torch.zeros(outputs)) if has_bias else None
        init(self.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _CONVOLVE[len(self.padding)](
            # This makes a view; in memory the channels remain last, a format of PyTorch.
            x.movedim(-1, 1),
            self.kernel(),
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
        ).movedim(1, -1)

    def kernel(self) -> torch.Tensor:
        """The kernel that is used; subclasses compute one from the weight."""
        return self.weight


def max_pool(x: torch.Tensor, window: tuple[int, ...], strides: tuple[int, ...]) -> torch.Tensor:
    """The maximum in windows of [b t h w c], padded by (k - 1) / 2 places on each side."""
    padding = tuple(size // 2 for size in window)
    return F.max_pool3d(x.movedim(-1, 1), window, strides, padding).movedim(1, -1)


class BatchNorm(nn.Module):
    """A batch norm over all axes but the last, with the constants and statistics of the JAX models.

    The running variance averages the batch's own variance (a sum divided by n). PyTorch's batch
    norm averages the unbiased estimate (a sum divided by n - 1).

    Args:
        channels: number of channels.
        momentum: share of the old statistics in the new ones.
        epsilon: added to the variance.
    """

    def __init__(self, channels: int, momentum: float = 0.9, epsilon: float = 1e-5):
        super().__init__()
        self.share, self.epsilon = 1 - momentum, epsilon  # share of the new batch
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer('running_mean', torch.zeros(channels))
        self.register_buffer('running_var', torch.ones(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return self._normalize(x, self.running_mean, self.running_var, momentum=0.0)
        mean, var = torch.zeros_like(self.running_mean), torch.zeros_like(self.running_var)
        result = self._normalize(x, mean, var, momentum=1.0)  # writes the batch's into mean, var
        count = x.numel() // x.shape[-1]
        self.running_mean.lerp_(mean, self.share)
        self.running_var.lerp_(var * (count - 1) / count, self.share)
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
            self.epsilon,
        ).movedim(1, -1)
