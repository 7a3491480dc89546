"""ViViT: A Video Vision Transformer (Arnab et al. 2021, arXiv 2103.15691).

The four models share one tokenizer and one encoder, and differ in the axes along which tokens
attend. Parameters have the names and shapes of the original implementation, so that its
checkpoints load without a rename.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from vivit_jax.layers.grid import uniform_frame_indices
from vivit_jax.layers.pooling import AttentionPool, pool_changes
from vivit_jax.layers.tokens import ModelOutput, Tokenizer, classify, find_grid, prepend_class_token
from vivit_jax.layers.transformer import Encoder, EncoderBlock, Rate
from vivit_jax.models.vivit import specification

Grid = tuple[int, int, int]  # tokens along time, height and width
Encoded = tuple[jax.Array, dict]  # features or tokens, and captured attention weights


class ViViT(nn.Module):
    """Tokenizer, encoders and classifier; each of the four models has its own `encode`."""

    spec: specification.ViViT

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
        if spec.tokenizer == 'uniform_frames':
            clip = clip[:, uniform_frame_indices(clip.shape[1], spec.num_sampled_frames)]
        tokens = Tokenizer(spec.hidden_size, spec.patch_size, spec.dtype, name='embedding')(clip)
        tokens = rearrange(tokens, 'b t h w d -> b t (h w) d')
        features, captured = self.encode(tokens, grid, mode)
        return classify(features, spec.num_classes, captured)

    def encode(self, tokens: jax.Array, grid: Grid, mode: dict) -> Encoded:
        """Maps tokens [b t n d] to features [b d]; also returns captured weights by encoder."""
        raise NotImplementedError

    def transform(
        self, name: str, tokens: jax.Array, grid: tuple[int, ...], mode: dict, **encoder
    ) -> Encoded:
        """Encodes tokens [b ... n d], with the class token, if there is one, before the others."""
        if self.spec.has_class_token:
            suffix = '' if name == 'Transformer' else f'_{name}'
            tokens = prepend_class_token(self, tokens, f'cls{suffix}')
        spec, norms = self.spec, {'has_pre_norm': self.spec.pre_norm}
        encode = Encoder(spec, grid, spec.position, name=name, **norms, **encoder)
        tokens, weights = encode(tokens, **mode)
        return tokens, {name: weights}

    def pool(self, tokens: jax.Array, time: int) -> jax.Array:
        """Maps the last encoder's tokens, [b n d] or [b t n d], to features [b d]."""
        places = tokens if tokens.ndim == 4 else tokens[:, int(self.spec.has_class_token) :]
        places = places.reshape(len(tokens), time, -1, tokens.shape[-1])
        self.sow('intermediates', 'tokens', places)
        if self.spec.pool.endswith('attention'):
            return AttentionPool(self.spec, name='attention_pool')(places)
        return summarize(tokens, self.spec.pool, tokens.ndim - 2)


def summarize(tokens: jax.Array, pool: str, num_axes: int = 1) -> jax.Array:
    """Pools tokens [b ... n d] to [b ... d]; with two axes, [b t n d] to [b d]."""
    if pool == 'cls':
        return tokens[..., 0, :]
    if pool == 'cls_mean':
        return jnp.concatenate([tokens[..., 0, :], tokens[..., 1:, :].mean(-2)], axis=-1)
    return tokens.mean(tuple(range(-1 - num_axes, -1)))


class Joint(ViViT):
    """Model 1: every token of the clip attends to every other. Source: section 3.3, model 1."""

    def encode(self, tokens: jax.Array, grid: Grid, mode: dict) -> Encoded:
        tokens = rearrange(tokens, 'b t n d -> b (t n) d')
        tokens, weights = self.transform('Transformer', tokens, grid, mode)
        return self.pool(tokens, grid[0]), weights


class FactorizedEncoder(ViViT):
    """Model 2: a spatial encoder for every time index, then a temporal encoder over the results.

    Source: section 3.3, model 2; `temporal_num_layers=0` is the frame-average baseline of table 4.
    """

    def encode(self, tokens: jax.Array, grid: Grid, mode: dict) -> Encoded:
        spec, (time, *space) = self.spec, grid
        tokens, spatial = self.transform('SpatialTransformer', tokens, tuple(space), mode)
        if spec.temporal_num_layers == 0:
            return self.pool_frames(tokens, tuple(space)), spatial
        frames = summarize(tokens, 'cls' if spec.has_class_token else 'mean')
        tokens, temporal = self.transform(
            'TemporalTransformer', frames, (time,), mode, num_layers=spec.temporal_num_layers
        )
        return self.pool(tokens, time), spatial | temporal

    def pool_frames(self, tokens: jax.Array, space: tuple[int, int]) -> jax.Array:
        """Maps the tokens of every time index [b t n d], class tokens included, to features."""
        if self.spec.pool.endswith('attention'):
            return self.pool(tokens, tokens.shape[1])
        self.sow('intermediates', 'tokens', tokens)
        if self.spec.frame_pool == 'change':
            return pool_changes(tokens[:, :, int(self.spec.has_class_token) :], space)
        frames = summarize(tokens, self.spec.pool)
        if self.spec.frame_pool == 'concat':
            return frames.reshape(len(frames), -1)
        return frames.mean(axis=1)


class FactorizedSelfAttentionBlock(EncoderBlock):
    """`x' = x + MSA_space(LN(x))`, `y = x' + MSA_time(LN(x'))`, `z = y + MLP(LN(y))`; [b t n d].

    Source: section 3.3, model 3.
    """

    order: tuple[str, ...] = ('space', 'time')

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        drop_path_rate: Rate = None,
        train: bool = False,
        capture_attention: bool = False,
    ) -> Encoded:
        captured = {}
        for axis in self.order:
            tokens, weights = self.attend(
                axis, (axis,), tokens, drop_path_rate, train, capture_attention
            )
            captured |= weights
        return self.feed_forward('MlpBlock', 'mlp', tokens, drop_path_rate, train), captured


class FactorizedSelfAttention(ViViT):
    """Model 3: in every block, attention along space, then another attention along time.

    Source: section 3.3, model 3. Differs from the original implementation: stochastic depth has an
    effect.
    """

    def encode(self, tokens: jax.Array, grid: Grid, mode: dict) -> Encoded:
        order = tuple(self.spec.attention_order.split('_'))
        block = functools.partial(FactorizedSelfAttentionBlock, order=order)
        tokens, weights = self.transform(
            'Transformer', tokens, grid, mode, token_axes=2, block=block
        )
        return self.pool(tokens, grid[0]), weights


# Half of the heads attend along time, the other half along space.
FactorizedDotProductBlock = functools.partial(EncoderBlock, axes=('time', 'space'))


class FactorizedDotProduct(ViViT):
    """Model 4: in every block, half of the heads attend along time, the other half along space.

    Source: section 3.3, model 4, with time first, as in the original implementation and its
    checkpoints (the paper writes space first).
    """

    def encode(self, tokens: jax.Array, grid: Grid, mode: dict) -> Encoded:
        tokens, weights = self.transform(
            'Transformer', tokens, grid, mode, token_axes=2, block=FactorizedDotProductBlock
        )
        return self.pool(tokens, grid[0]), weights
