"""ViViT: A Video Vision Transformer (Arnab et al. 2021, arXiv 2103.15691).

Four models from one tokenizer, one block and one encoder: they differ in which axes of the tokens
attend. Parameter names and shapes are those of the original implementation, so that its checkpoints
load without a rename.
"""

import functools
from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from vivit_jax.layers.blocks import (
    HEADS_SHARED,
    ONE_SEQUENCE,
    SPACE_THEN_TIME,
    TIME_THEN_SPACE,
    Attentions,
)
from vivit_jax.layers.layout import row_major
from vivit_jax.layers.tokenizers import Tokenizer
from vivit_jax.models.outputs import ModelOutput
from vivit_jax.models.transformer import VideoTransformer


class ViViT(VideoTransformer):
    """What the four models share: tokens, encoders over them, classifier.

    Attributes:
        tokenizer: `'tubelet'`, or `'uniform_frames'`: patches of single frames, for which
            `tubelet_size` has t = 1.
        num_sampled_frames: frames that `uniform_frames` takes from a clip.
        pool: `'cls'`, a class token in each encoder, or `'mean'` over tokens, without any.
        position: `'learned'`, `'sincos3d'` or `'none'`, in each encoder.
    """

    tokenizer: str = 'tubelet'
    num_sampled_frames: int = 16
    pool: str = 'cls'
    position: str = 'learned'

    @nn.compact
    def __call__(
        self, clip: jax.Array, train: bool = False, capture_attention: bool = False
    ) -> ModelOutput:
        """Classifies clips.

        Args:
            clip: float [b t h w c] in the range of the preprocessing, usually [-1, 1].
            train: switches dropout and stochastic depth on; needs the rng `dropout`.
            capture_attention: returns all attention weights, which holds them in memory.
        """
        tokens = Tokenizer(
            self.hidden_size,
            self.tubelet_size,
            self.tokenizer,
            self.num_sampled_frames,
            jnp.dtype(self.dtype),
            name='embedding',
        )(clip)
        encode = functools.partial(self._encode, train=train, capture_attention=capture_attention)
        return self._classify(*self._features(tokens, encode))

    def _features(self, tokens: jax.Array, encode) -> tuple[jax.Array, dict]:
        """Tokens [b t h w d] to features [b d] and captured weights; each model has its own."""
        raise NotImplementedError

    def _encode(
        self,
        tokens: jax.Array,
        *,
        name: str,
        grid: tuple[int, ...],
        attentions: Attentions = ONE_SEQUENCE,
        num_layers: int | None = None,
        class_token: str = 'cls',
        train: bool,
        capture_attention: bool,
    ) -> tuple[jax.Array, dict]:
        """Summarises sequences: tokens [b ... n d] to [b ... d], or [b t n d] to [b d].

        Returns:
            The summaries, and captured attention weights under the name of the encoder.
        """
        if self.pool == 'cls':
            tokens = self._prepend_class_token(tokens, class_token)
        encoder = self._encoder(
            name=name,
            grid=grid,
            position=self.position,
            attentions=attentions,
            num_layers=num_layers,
        )
        tokens, captured = encoder(tokens, train=train, capture_attention=capture_attention)
        if self.pool == 'cls':
            summary = tokens[..., 0, :]
        else:
            summary = tokens.mean(axis=tuple(range(-1 - encoder.token_axes, -1)))
        return summary, {name: captured} if captured else {}


class Joint(ViViT):
    """Model 1: every token of the clip attends to every other.

    Source: section 3.3, model 1.
    """

    def _features(self, tokens: jax.Array, encode) -> tuple[jax.Array, dict]:
        batch, *grid, width = tokens.shape
        return encode(tokens.reshape(batch, -1, width), name='Transformer', grid=tuple(grid))


class FactorizedEncoder(ViViT):
    """Model 2: a spatial encoder for every time index, then a temporal one over their summaries.

    Source: section 3.3, model 2; `temporal_num_layers=0` is the frame-average baseline of table 4.

    Attributes:
        temporal_num_layers: blocks of the temporal encoder; 0 takes the mean over time.
    """

    temporal_num_layers: int = 4

    def _features(self, tokens: jax.Array, encode) -> tuple[jax.Array, dict]:
        batch, time, height, width, _ = tokens.shape
        frames, captured = encode(
            tokens.reshape(batch, time, height * width, -1),
            name='SpatialTransformer',
            grid=(height, width),
            class_token='cls_SpatialTransformer',
        )
        if not self.temporal_num_layers:
            return frames.mean(axis=1), captured
        # Else the classifier's gradient, which wants transposed features, transposes all tokens.
        frames = row_major(frames)
        features, temporal = encode(
            frames,
            name='TemporalTransformer',
            grid=(time,),
            num_layers=self.temporal_num_layers,
            class_token='cls_TemporalTransformer',
        )
        return features, captured | temporal


class _FactorizedBlock(ViViT):
    """Models 3 and 4: blocks whose attentions run along space or along time."""

    pool: str = 'mean'
    CHOICES: ClassVar[Mapping[str, tuple[str, ...]]] = {'pool': ('mean',)}

    def _attentions(self) -> Attentions:
        raise NotImplementedError

    def _features(self, tokens: jax.Array, encode) -> tuple[jax.Array, dict]:
        batch, time, height, width, _ = tokens.shape
        return encode(
            tokens.reshape(batch, time, height * width, -1),
            name='Transformer',
            grid=(time, height, width),
            attentions=self._attentions(),
        )


class FactorizedSelfAttention(_FactorizedBlock):
    """Model 3: in every block attention along space, then another one along time.

    Source: section 3.3, model 3. Differs from the original implementation: stochastic depth acts.

    Attributes:
        attention_order: `'space_time'`, or `'time_space'`.
    """

    attention_order: str = 'space_time'

    def _attentions(self) -> Attentions:
        return SPACE_THEN_TIME if self.attention_order == 'space_time' else TIME_THEN_SPACE


class FactorizedDotProduct(_FactorizedBlock):
    """Model 4: half of the heads attend along time, the other half along space.

    Source: section 3.3, model 4, with time first, as in the original implementation and its
    checkpoints (the paper writes space first).
    """

    def _attentions(self) -> Attentions:
        return HEADS_SHARED
