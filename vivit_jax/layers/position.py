"""Position embeddings."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vivit_jax.layers.grid import sincos_positions


class PositionEmbedding(nn.Module):
    """Adds positions to tokens [... n d] or [... t n d].

    Attributes:
        kind: `'learned'`, a table [1 n d] or [1 t·n d] in `<name>/pos_embedding`, `'sincos3d'`, or
            `'none'`.
        grid: places of the tokens along each axis; class tokens before them have no place and
            get zero from `'sincos3d'`.
        token_axes: how many axes of the tokens have positions: 1 for n, 2 for t and n.
    """

    kind: str
    grid: tuple[int, ...]
    token_axes: int = 1

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        *places, width = tokens.shape[-1 - self.token_axes :]
        num_tokens = math.prod(places)
        if self.kind == 'none':
            return tokens
        if self.kind == 'sincos3d':
            before = num_tokens - math.prod(self.grid)
            table = np.pad(sincos_positions(self.grid, width), ((before, 0), (0, 0)))
        else:
            init = nn.initializers.normal(0.02)  # from BERT
            table = self.param('pos_embedding', init, (1, num_tokens, width))
        return tokens + jnp.asarray(table, tokens.dtype).reshape(*places, width)


class ClipPositionEmbedding(nn.Module):
    """Adds learned positions to frames [b t 1+n d] whose first token is a class token.

    The table [1 1+t·n d] in `<name>/pos_embedding` has one row for all the class tokens, then one
    for every other token of the clip.
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
