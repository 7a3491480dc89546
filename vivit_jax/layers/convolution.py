"""Convolutions around and within transformers.

All convolutions are padded with (k - 1) / 2 zeros on each side, because `'SAME'` would shift a
kernel of stride 2. Batch norm keeps its running statistics in the collection `batch_stats`, and
normalizes over the whole batch, on however many devices it is distributed.
"""

import flax.linen as nn

from vivit_jax.layers.convolution_kernels import convolve


def convolution(
    features: int,
    kernel_size: tuple[int, ...],
    depthwise: bool = False,
    dilation: int = 1,
    **keywords,
) -> nn.Conv:
    """An `nn.Conv` over the axes before the last; `depthwise`: every channel by itself.

    `dilation` is the distance of a kernel's taps; they are padded with as many times more zeros.
    """
    return nn.Conv(
        features,
        kernel_size,
        padding=[2 * (size // 2 * dilation,) for size in kernel_size],
        kernel_dilation=dilation,
        feature_group_count=features if depthwise else 1,
        conv_general_dilated=convolve,
        **keywords,
    )


def batch_norm(*, train: bool, **keywords) -> nn.BatchNorm:
    """A batch norm over all axes but the last, with the constants of ResNet."""
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, **keywords)
