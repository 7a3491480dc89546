"""CTN, the convolutional transformer network: convolutions within a video transformer.

CTN is ViViT's model 1 without positions, with a 3D convolution as stem and with depthwise
convolutions before the queries, keys and values.

Source: Yujun Ma, Deep learning for action recognition in videos (PhD thesis, Massey University,
2024), chapter 4; below, "Ma 2024".
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax.typing import DTypeLike

from vivit_jax.layers.convolution import batch_norm, convolution
from vivit_jax.layers.convolution_kernels import max_pool
from vivit_jax.layers.tokens import ModelOutput, Tokenizer, classify, find_grid, prepend_class_token
from vivit_jax.layers.transformer import Encoder, EncoderBlock, SelfAttention
from vivit_jax.models.ctn import specification


class Ctn(nn.Module):
    """A stem, tubelets of the stem's channels, a class token, an encoder.

    Differs from Ma 2024, whose equations are post-norm, although the weights come from a pre-norm
    ViT, and whose stem halves time twice, which contradicts the thesis's costs and other figures.
    """

    spec: specification.Ctn

    @nn.compact
    def __call__(
        self, clip: jax.Array, train: bool = False, capture_attention: bool = False
    ) -> ModelOutput:
        """Classifies clips.

        Args:
            clip: float [b t h w c] in the range of the preprocessing, usually [-1, 1].
            train: switches dropout, stochastic depth and the statistics of batches on; needs the
                rng `dropout` and a mutable collection `batch_stats`.
            capture_attention: returns all attention weights, which must fit into memory.

        Raises:
            ValueError: the clip is not what the model takes, see `find_grid`.
        """
        spec = self.spec
        grid = find_grid(spec, clip)
        if spec.embed == 'video_to_tokens':
            clip = ConvStem(
                spec.stem_channels,
                spec.stem_kernel,
                spec.stem_strides,
                spec.pool_strides,
                has_norm=spec.stem_bn,
                dtype=spec.dtype,
                name='stem',
            )(clip, train=train)
        tokens = Tokenizer(spec.hidden_size, spec.patch_size, spec.dtype, name='embedding')(clip)
        tokens = rearrange(tokens, 'b t h w d -> b (t h w) d')
        tokens = prepend_class_token(self, tokens)
        attention = SelfAttention
        if spec.mapping == 'conv':
            local = functools.partial(
                LocalTokens, grid, spec.mapping_kernel, spec.mapping_bn, spec.depthwise_init
            )
            attention = functools.partial(SelfAttention, local=local)
        encoder = Encoder(
            spec,
            grid,
            spec.position,
            block=functools.partial(
                EncoderBlock if spec.norm == 'pre' else PostNormBlock, attention=attention
            ),
            has_final_norm=spec.norm == 'pre',
            name='Transformer',
        )
        tokens, weights = encoder(tokens, train=train, capture_attention=capture_attention)
        return classify(tokens[:, 0], spec.num_classes, {'Transformer': weights})


class PostNormBlock(EncoderBlock):
    """`y = LN(x + MSA(x))`, `z = LN(y + MLP(y))`."""

    def norm_before(self, suffix: str, tokens: jax.Array) -> jax.Array:
        return tokens

    def norm_after(self, suffix: str, tokens: jax.Array) -> jax.Array:
        return super().norm_before(suffix, tokens)


class ConvStem(nn.Module):
    """`MaxPool3x3x3(BN(Conv(clip)))`, a smaller clip with more channels.

    Source: Ma 2024, chapter 4, section on video-to-tokens.

    Attributes:
        channels: number of channels of the result.
        kernel_size: size of the convolution along each axis; odd.
        stride: (t, h, w) strides of the convolution.
        pool_stride: (t, h, w) strides of the pooling; (): there is no pooling.
        has_norm: whether there is a batch norm; without it the convolution has a bias.
        dtype: type of the computation.
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
            x = max_pool(x, (3, 3, 3), self.pool_stride)
        return x


class LocalTokens(nn.Module):
    """Depthwise convolution and batch norm of the tokens of each time index.

    The class token stays as it is.

    Source: CvT (arXiv 2103.15808), section 3.2, for the maps of single frames.

    Attributes:
        grid: tokens along time, height and width.
        kernel_size: size of the kernel along height and width; odd.
        has_norm: whether there is a batch norm.
        kernel_init: `'identity'`, 1 at the center and 0 elsewhere, or `'lecun'`, random.
        dtype: type of the computation.
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
