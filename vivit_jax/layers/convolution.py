"""Convolutions around and within transformers.

All are padded with (k - 1) / 2 zeros on each side: `'SAME'` would shift a kernel of stride 2. Batch
norm keeps its running statistics in the collection `batch_stats` and sees the whole batch, on
however many devices it lies.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vivit_jax.layers.convolution_kernels import convolve
from vivit_jax.layers.linear import Linear


def convolution(features: int, kernel_size: tuple[int, ...], depthwise: bool = False, **keywords):
    """An `nn.Conv` over the axes before the last; `depthwise`: every channel by itself."""
    return nn.Conv(
        features,
        kernel_size,
        padding=[(size // 2, size // 2) for size in kernel_size],
        feature_group_count=features if depthwise else 1,
        conv_general_dilated=convolve,
        **keywords,
    )


def batch_norm(*, train: bool, **keywords) -> nn.BatchNorm:
    """A batch norm over all axes but the last, with the constants of ResNet."""
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, **keywords)


class PositionConvolution(nn.Module):
    """Adds a depthwise 3x3x3 convolution of [b t h w c], whose padding tells positions.

    Source: UniFormer (arXiv 2201.04676), section 3.4, dynamic position embedding.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        conv = convolution(x.shape[-1], (3, 3, 3), depthwise=True, dtype=self.dtype, name='conv')
        return x + conv(x)


class CnnBlock(nn.Module):
    """`S(x) + W2 GELU(BN(Conv5x5x5(GELU(W1 BN(x)))))` of `x = clip + DepthwiseConv3x3x3(clip)`.

    S is the identity where the channels stay as many, else linear without a bias.

    Source: ConViViT (Dokkar et al. 2023), after the local blocks of UniFormer (arXiv 2201.04676).

    Attributes:
        channels: of the result.
        conv5: `'depthwise'` or `'dense'`.
        dtype: of the computation.
    """

    channels: int
    conv5: str = 'depthwise'
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, clip: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps [b t h w c] to [b t h w channels]."""
        norm = functools.partial(batch_norm, train=train, dtype=self.dtype)
        dense = functools.partial(
            Linear,
            (self.channels,),
            kernel_init=nn.initializers.lecun_normal(),
            dtype=self.dtype,
        )
        gelu = functools.partial(nn.gelu, approximate=False)
        clip = PositionConvolution(self.dtype, name='position')(clip)
        x = gelu(dense(name='dense_in')(norm(name='norm_in')(clip)))
        x = convolution(
            self.channels,
            (5, 5, 5),
            depthwise=self.conv5 == 'depthwise',
            dtype=self.dtype,
            name='conv',
        )(x)
        x = dense(name='dense_out')(gelu(norm(name='norm')(x)))
        if clip.shape[-1] != self.channels:
            clip = dense(use_bias=False, name='shortcut')(clip)
        return clip + x


class ConvStem(nn.Module):
    """`MaxPool3x3x3(BN(Conv(clip)))`, a smaller clip with more channels.

    Source: CTN (Ma et al., thesis), section on video-to-tokens.

    Attributes:
        channels: of the result.
        kernel_size: of the convolution, along each axis; odd.
        stride: (t, h, w) of the convolution.
        pool_stride: (t, h, w) of the pooling; (): there is none.
        has_norm: whether there is a batch norm; without it the convolution has a bias.
        dtype: of the computation.
    """

    channels: int
    kernel_size: int
    stride: tuple[int, int, int]
    pool_stride: tuple[int, ...] = ()
    has_norm: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, clip: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps [b t h w c] to [b t' h' w' channels]."""
        x = convolution(
            self.channels,
            3 * (self.kernel_size,),
            strides=self.stride,
            use_bias=not self.has_norm,
            dtype=self.dtype,
            name='conv',
        )(clip)
        if self.has_norm:
            x = batch_norm(train=train, dtype=self.dtype, name='norm')(x)
        if self.pool_stride:
            x = nn.max_pool(x, (3, 3, 3), self.pool_stride, padding=3 * ((1, 1),))
        return x


class LocalTokens(nn.Module):
    """Depthwise convolution and batch norm of tokens within each time index.

    A class token passes by.

    Source: CvT (arXiv 2103.15808), section 3.2, for the maps of single frames.

    Attributes:
        grid: (t, h, w) of the tokens.
        kernel_size: along both axes; odd.
        has_norm: whether there is a batch norm.
        kernel_init: `'identity'`, 1 at its center, or `'lecun'`, random.
        dtype: of the computation.
    """

    grid: tuple[int, int, int]
    kernel_size: int = 3
    has_norm: bool = True
    kernel_init: str = 'identity'
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, tokens: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps tokens [b 1+t·h·w d], the class token first, to the same shape."""
        batch, _, width = tokens.shape
        class_token, patches = tokens[:, :1], tokens[:, 1:]
        maps = convolution(
            width,
            2 * (self.kernel_size,),
            depthwise=True,
            use_bias=False,
            kernel_init=_identity
            if self.kernel_init == 'identity'
            else nn.initializers.lecun_normal(),
            dtype=self.dtype,
            name='conv',
        )(patches.reshape(batch, *self.grid, width))
        if self.has_norm:
            maps = batch_norm(train=train, dtype=self.dtype, name='norm')(maps)
        return jnp.concatenate([class_token, maps.reshape(patches.shape)], axis=1)


def _identity(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
    """A depthwise kernel [h w 1 c] that returns its input."""
    return jnp.zeros(shape, dtype).at[shape[0] // 2, shape[1] // 2].set(1)
