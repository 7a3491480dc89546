"""RPE-STDT: a ViT encodes every frame, and a temporal encoder keeps the important frames.

The ViT has relative positions, and encodes every frame by itself. A light temporal encoder reads
the class tokens of the frames, and twice drops the less important half of them.

Source: Yujun Ma, Deep learning for action recognition in videos (PhD thesis, Massey University,
2024), chapter 3.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from vivit_jax.layers.tokens import ModelOutput, Tokenizer, classify, find_grid, prepend_class_token
from vivit_jax.layers.transformer import Encoder, EncoderBlock, SelfAttention
from vivit_jax.models.rpe_stdt import specification
from vivit_jax.models.rpe_stdt.relative_position import RelativePosition
from vivit_jax.models.rpe_stdt.temporal import TemporalEncoder


class RpeStdt(nn.Module):
    """A spatial encoder for every frame, then a temporal encoder over the frames' class tokens."""

    spec: specification.RpeStdt

    @nn.compact
    def __call__(
        self, clip: jax.Array, train: bool = False, capture_attention: bool = False
    ) -> ModelOutput:
        """Classifies clips.

        Args:
            clip: float [b t h w c] in the range of the preprocessing, usually [-1, 1].
            train: switches dropout and stochastic depth on; needs the rng `dropout`.
            capture_attention: returns all attention weights, which must fit into memory.

        Raises:
            ValueError: the clip is not what the model takes, see `find_grid`.
        """
        spec, mode = self.spec, {'train': train, 'capture_attention': capture_attention}
        grid = find_grid(spec, clip)
        tokens = Tokenizer(spec.hidden_size, spec.tubelet_size, spec.dtype, name='embedding')(clip)
        tokens = rearrange(tokens, 'b t h w d -> b t (h w) d')
        tokens = prepend_class_token(self, tokens, 'cls_SpatialTransformer')
        if spec.pos_embed == 'absolute':
            tokens = ClipPositionEmbedding(name='posembed_input')(tokens)
        tokens, spatial = self._spatial_encoder(grid[1:])(tokens, **mode)
        frames = tokens[:, :, 0]
        if spec.temporal == 'none':
            captured = {'SpatialTransformer': spatial}
            return classify(frames.mean(axis=1), spec.num_classes, captured)
        tokens = prepend_class_token(self, frames, 'cls_TemporalTransformer')
        tokens, temporal = TemporalEncoder(spec, name='TemporalTransformer')(tokens, **mode)
        captured = {'SpatialTransformer': spatial, 'TemporalTransformer': temporal}
        return classify(tokens[:, 0], spec.num_classes, captured)

    def _spatial_encoder(self, grid: tuple[int, int]) -> Encoder:
        spec, attention = self.spec, SelfAttention
        if spec.is_relative:
            relative = functools.partial(
                RelativePosition,
                grid,
                ratio=spec.rpe_ratio,
                function=spec.rpe_function,
                method=spec.rpe_method,
                terms=spec.rpe_terms,
                shared_heads=spec.shared_heads,
            )
            attention = functools.partial(SelfAttention, relative=relative)
        return Encoder(
            spec,
            grid,
            'learned' if spec.pos_embed == 'frame' else 'none',
            block=functools.partial(EncoderBlock, attention=attention),
            name='SpatialTransformer',
        )


class ClipPositionEmbedding(nn.Module):
    """Adds learned positions to frames [b t 1+n d] whose first token is a class token.

    The table [1 1+t·n d] in `<name>/pos_embedding` has one row that all class tokens share, then a
    row for every other token of the clip.
    """

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        _, time, num_tokens, width = tokens.shape
        num_places = num_tokens - 1
        init = nn.initializers.normal(0.02)  # from BERT
        table = self.param('pos_embedding', init, (1, 1 + time * num_places, width))
        for_class = jnp.broadcast_to(table[:, :1], (time, 1, width))
        for_places = table[:, 1:].reshape(time, num_places, width)
        positions = jnp.concatenate([for_class, for_places], axis=1)
        return tokens + positions.astype(tokens.dtype)
