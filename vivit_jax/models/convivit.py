"""ConViViT (arXiv 2310.14416): a small CNN in front of a factorized video transformer."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from vivit_jax.layers.blocks import HEADS_SHARED, SPACE_THEN_TIME
from vivit_jax.layers.convolution import CnnBlock, PositionConvolution
from vivit_jax.layers.encoder import REMAT_POLICIES
from vivit_jax.layers.grid import token_grid
from vivit_jax.layers.heads import Classes
from vivit_jax.layers.tokenizers import Tokenizer
from vivit_jax.models.choices import CONVIVIT_CHOICES, check_convivit
from vivit_jax.models.outputs import ModelOutput
from vivit_jax.models.transformer import VideoTransformer

_ATTENTIONS = {'self_attention': SPACE_THEN_TIME, 'dot_product': HEADS_SHARED}


class ConViViT(VideoTransformer):
    """A CNN over the clip, patches of its channels, an encoder, the mean over tokens.

    The encoder has no table of positions: a depthwise convolution over the tokens tells them.
    Where the paper leaves details open, they are those of UniFormer and ViViT: GELU between the
    convolutions, a depthwise one of 5x5x5, patches of single frames, the encoder of ViT-B.

    Attributes:
        cnn_blocks: 0, 1 or 2.
        cnn_channels: of the CNN.
        cnn_conv5: its 5x5x5 convolutions: `'depthwise'` or `'dense'`.
        cnn_stride: 2 halves height and width of the clip before the CNN, which saves memory and is
            not in the paper; the tokens stay as many.
        factorization: `'self_attention'`, ViViT's model 3, or `'dot_product'`, its model 4.
    """

    num_classes: Classes = 51
    tubelet_size: tuple[int, int, int] = (1, 16, 16)
    cnn_blocks: int = 1
    cnn_channels: int = 128
    cnn_conv5: str = 'depthwise'
    cnn_stride: int = 1
    factorization: str = 'self_attention'

    CHOICES = CONVIVIT_CHOICES

    @classmethod
    def check(cls, values: Mapping[str, object]):
        """Raises a ValueError where values of the attributes do not fit each other."""
        super().check(values)
        check_convivit(values)

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
            ValueError: the clip does not divide into whole patches.
        """
        dtype = jnp.dtype(self.dtype)
        batch, *clip_shape, _ = clip.shape
        grid = token_grid(clip_shape, self.tubelet_size, 'tubelet', 0)
        length, *patch = self.tubelet_size
        kernel = (length, *(size // self.cnn_stride for size in patch))

        x = self._cnn(clip.astype(dtype), train)
        tokens = Tokenizer(self.hidden_size, kernel, 'tubelet', 0, dtype, name='embedding')(x)
        tokens = nn.LayerNorm(self.layer_norm_eps, dtype=dtype, name='embedding_norm')(tokens)
        tokens = PositionConvolution(dtype, name='embedding_position')(tokens)
        tokens, captured = self._encoder(
            name='Transformer',
            grid=grid,
            position='none',
            attentions=_ATTENTIONS[self.factorization],
        )(
            tokens.reshape(batch, grid[0], -1, self.hidden_size),
            train=train,
            capture_attention=capture_attention,
        )
        features = tokens.mean(axis=(1, 2))
        return self._classify(features, {'Transformer': captured} if captured else {})

    def _cnn(self, clip: jax.Array, train: bool) -> jax.Array:
        """Maps [b t h w c] to [b t h w c'], or to half of height and width."""

        def run(block: nn.Module, clip: jax.Array) -> jax.Array:
            return block(clip, train=train)

        if self.remat != 'none':
            run = nn.remat(run, policy=REMAT_POLICIES[self.remat])
        if self.cnn_stride > 1:
            window = (1, self.cnn_stride, self.cnn_stride)
            clip = nn.avg_pool(clip, window, strides=window)
        for index in range(self.cnn_blocks):
            block = CnnBlock(
                self.cnn_channels, self.cnn_conv5, clip.dtype, name=f'cnnblock_{index}'
            )
            clip = run(block, clip)
        return clip
