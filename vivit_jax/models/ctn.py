"""CTN (Ma et al., a chapter of a thesis of 2023-24): convolutions within a video transformer.

ViViT's model 1 with a stem of a 3D convolution, and depthwise convolutions in front of the queries,
keys and values; without positions.
"""

import functools
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from vivit_jax.layers.attention import SelfAttention
from vivit_jax.layers.convolution import ConvStem, LocalTokens
from vivit_jax.layers.grid import token_grid
from vivit_jax.layers.heads import Classes
from vivit_jax.layers.tokenizers import Tokenizer
from vivit_jax.models.choices import CTN_CHOICES, check_ctn, stem_reduction
from vivit_jax.models.outputs import ModelOutput
from vivit_jax.models.transformer import VideoTransformer


class Ctn(VideoTransformer):
    """A stem, tubelets of its channels, a class token, an encoder.

    `tubelet_size` counts frames and pixels of the clip, so the tokens are as many with any stem.
    Differs from the thesis: its equations are post-norm, but its weights are those of a pre-norm
    ViT; and its stem halves time twice, which neither its costs nor its other figures allow.

    Attributes:
        embed: `'video_to_tokens'`, with the stem, or `'tubelet'`, without.
        stem_kernel: its convolution along each axis; odd.
        stem_stride: stride of its convolution along height and width.
        stem_pool: whether max pooling follows, which halves height and width.
        stem_bn: whether there is a batch norm, else a bias.
        stem_channels: of the stem.
        stem_t_stride: strides along time of the convolution and of the pooling.
        position: `'none'`, `'learned'` or `'sincos3d'`.
        mapping: queries, keys and values are `'linear'`, or so after a depthwise convolution of
            each time index, which the class token skips: `'conv'`.
        mapping_kernel: of this convolution; odd.
        mapping_bn: whether a batch norm follows it.
        depthwise_init: its kernels at the start: `'identity'` or `'lecun'`, random.
        norm: `'pre'` or `'post'`, see `EncoderBlock`.
    """

    num_classes: Classes = 48
    embed: str = 'video_to_tokens'
    stem_kernel: int = 7
    stem_stride: int = 2
    stem_pool: bool = True
    stem_bn: bool = True
    stem_channels: int = 32
    stem_t_stride: tuple[int, int] = (1, 1)
    position: str = 'none'
    mapping: str = 'conv'
    mapping_kernel: int = 3
    mapping_bn: bool = True
    depthwise_init: str = 'identity'
    norm: str = 'pre'

    CHOICES = CTN_CHOICES

    @classmethod
    def check(cls, values: Mapping[str, object]):
        """Raises a ValueError where values of the attributes do not fit each other."""
        super().check(values)
        check_ctn(values)

    @nn.compact
    def __call__(
        self, clip: jax.Array, train: bool = False, capture_attention: bool = False
    ) -> ModelOutput:
        """Classifies clips.

        Args:
            clip: float [b t h w c] in the range of the preprocessing, usually [-1, 1].
            train: switches dropout, stochastic depth and the statistics of batches on; needs the
                rng `dropout` and a mutable collection `batch_stats`.
            capture_attention: returns all attention weights, which holds them in memory.

        Raises:
            ValueError: the clip does not divide into whole tubelets.
        """
        dtype = jnp.dtype(self.dtype)
        batch, *clip_shape, _ = clip.shape
        grid = token_grid(clip_shape, self.tubelet_size, 'tubelet', 0)
        if self.embed == 'video_to_tokens':
            clip = self._stem(dtype)(clip, train=train)
        reduction = stem_reduction(self.embed, self.stem_stride, self.stem_pool, self.stem_t_stride)
        kernel = tuple(
            whole // part for whole, part in zip(self.tubelet_size, reduction, strict=True)
        )
        tokens = Tokenizer(self.hidden_size, kernel, 'tubelet', 0, dtype, name='embedding')(clip)
        tokens = self._prepend_class_token(tokens.reshape(batch, -1, self.hidden_size), 'cls')
        attention = SelfAttention
        if self.mapping == 'conv':
            attention = functools.partial(
                SelfAttention,
                local=functools.partial(
                    LocalTokens, grid, self.mapping_kernel, self.mapping_bn, self.depthwise_init
                ),
            )
        tokens, captured = self._encoder(
            name='Transformer',
            grid=grid,
            position=self.position,
            norm=self.norm,
            attention=attention,
        )(tokens, train=train, capture_attention=capture_attention)
        return self._classify(tokens[:, 0], {'Transformer': captured} if captured else {})

    def _stem(self, dtype: jnp.dtype) -> ConvStem:
        time, pool_time = self.stem_t_stride
        return ConvStem(
            self.stem_channels,
            self.stem_kernel,
            stride=(time, self.stem_stride, self.stem_stride),
            pool_stride=(pool_time, 2, 2) if self.stem_pool else (),
            has_norm=self.stem_bn,
            dtype=dtype,
            name='stem',
        )
