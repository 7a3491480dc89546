"""Convolutions around and within transformers.

All convolutions are padded with (k - 1) / 2 zeros on each side, because `'SAME'` would shift a
kernel of stride 2. Batch norm keeps its running statistics in the collection `batch_stats`, and
normalizes over the whole batch, on however many devices it is distributed.
"""

from collections.abc import Callable

import flax.linen as nn
import jax

from vivit_jax.layers.convolution_kernels import convolve


def convolution(
    features: int,
    kernel_size: tuple[int, ...],
    depthwise: bool = False,
    dilation: int = 1,
    fold: Callable[[jax.Array], jax.Array] = lambda kernel: kernel,
    **keywords,
) -> nn.Conv:
    """An `nn.Conv` over the axes before the last.

    Args:
        features: number of channels of the result.
        kernel_size: size along each axis; odd.
        depthwise: whether every channel is convolved by itself.
        dilation: distance of a kernel's taps, which are padded with as many times more zeros.
        fold: computes the kernel that is used from the kernel that is a parameter.
        **keywords: of `nn.Conv`.
    """

    def convolve_with(x: jax.Array, kernel: jax.Array, *args, **others) -> jax.Array:
        return convolve(x, fold(kernel), *args, **others)

    return nn.Conv(
        features,
        kernel_size,
        padding=[2 * (size // 2 * dilation,) for size in kernel_size],
        kernel_dilation=dilation,
        feature_group_count=features if depthwise else 1,
        conv_general_dilated=convolve_with,
        **keywords,
    )


def batch_norm(
    *, train: bool, momentum: float = 0.9, epsilon: float = 1e-5, **keywords
) -> nn.BatchNorm:
    """A batch norm over all axes but the last; the default constants are ResNet's."""
    return nn.BatchNorm(
        use_running_average=not train, momentum=momentum, epsilon=epsilon, **keywords
    )
