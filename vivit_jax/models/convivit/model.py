"""ConViViT (Dokkar et al. 2023, arXiv 2310.14416): a small CNN before a factorized transformer."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax.typing import DTypeLike

from vivit_jax.layers.convolution import batch_norm, convolution
from vivit_jax.layers.linear import Linear
from vivit_jax.layers.stack import rematerialize
from vivit_jax.layers.tokens import ModelOutput, Tokenizer, classify, find_grid
from vivit_jax.layers.transformer import Encoder, layer_norm
from vivit_jax.models.convivit import specification
from vivit_jax.models.vivit.model import FactorizedDotProductBlock, FactorizedSelfAttentionBlock

_BLOCKS = {
    'self_attention': FactorizedSelfAttentionBlock,
    'dot_product': FactorizedDotProductBlock,
}


class ConViViT(nn.Module):
    """A CNN over the clip, patches of the CNN's channels, an encoder, the mean over tokens.

    The encoder has no position table: a depthwise convolution over the tokens encodes positions.
    Details that the paper leaves open follow UniFormer and ViViT: GELU between the convolutions, a
    depthwise 5x5x5 convolution, patches of single frames, and an encoder of the size of ViT-B.
    """

    spec: specification.ConViViT

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
        x = self._cnn(clip.astype(spec.dtype), train)
        tokens = Tokenizer(spec.hidden_size, spec.patch_size, spec.dtype, name='embedding')(x)
        tokens = layer_norm(spec, 'embedding_norm')(tokens)
        tokens = PositionConvolution(spec.dtype, name='embedding_position')(tokens)
        tokens = rearrange(tokens, 'b t h w d -> b t (h w) d')
        block = _BLOCKS[spec.factorization]
        encoder = Encoder(spec, grid, 'none', token_axes=2, block=block, name='Transformer')
        tokens, weights = encoder(tokens, train=train, capture_attention=capture_attention)
        return classify(tokens.mean(axis=(1, 2)), spec.num_classes, {'Transformer': weights})

    def _cnn(self, clip: jax.Array, train: bool) -> jax.Array:
        """Maps [b t h w c] to [b t h/s w/s c'], with the stride s = `cnn_stride`."""
        spec = self.spec

        def run(block: nn.Module, clip: jax.Array) -> jax.Array:
            return block(clip, train=train)

        run = rematerialize(run, spec.remat)
        if spec.cnn_stride > 1:
            window = (1, spec.cnn_stride, spec.cnn_stride)
            clip = nn.avg_pool(clip, window, strides=window)
        for index in range(spec.cnn_blocks):
            block = CnnBlock(
                spec.cnn_channels, spec.cnn_conv5, spec.dtype, name=f'cnnblock_{index}'
            )
            clip = run(block, clip)
        return clip


class PositionConvolution(nn.Module):
    """Adds a depthwise 3x3x3 convolution of [b t h w c]; its zero padding encodes positions.

    Source: UniFormer (arXiv 2201.04676), section 3.4, dynamic position embedding.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        conv = convolution(x.shape[-1], (3, 3, 3), depthwise=True, dtype=self.dtype, name='conv')
        return x + conv(x)


class CnnBlock(nn.Module):
    """`S(x) + W2 GELU(BN(Conv5x5x5(GELU(W1 BN(x)))))` of `x = clip + DepthwiseConv3x3x3(clip)`.

    S is the identity if the number of channels stays the same, else a linear map without bias.

    Source: ConViViT (Dokkar et al. 2023), after the local blocks of UniFormer (arXiv 2201.04676).

    Attributes:
        channels: number of channels of the result.
        conv5: `'depthwise'` or `'dense'`.
        dtype: type of the computation.
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
