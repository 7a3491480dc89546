"""Position embeddings."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


def sincos_positions(grid: tuple[int, ...], width: int) -> np.ndarray:
    """Sines and cosines of the places of a grid, float32 [prod(grid) width].

    Every axis longer than one place gets an equal, even share of the channels; those that remain
    are zero. Channel i of m pairs has the wavelength 2π · 10000^(i/m).

    Source: Attention Is All You Need (arXiv 1706.03762), section 3.5, for each axis.
    """
    axes = [axis for axis, size in enumerate(grid) if size > 1]
    table = np.zeros((*grid, width), np.float32)
    pairs = width // (2 * max(len(axes), 1))
    frequencies = 10000.0 ** -(np.arange(pairs) / max(pairs, 1))
    for share, axis in enumerate(axes):
        shape = [-1 if a == axis else 1 for a in range(len(grid))]
        angles = np.arange(grid[axis]).reshape(*shape, 1) * frequencies
        start = 2 * pairs * share
        table[..., start : start + pairs] = np.sin(angles)
        table[..., start + pairs : start + 2 * pairs] = np.cos(angles)
    return table.reshape(-1, width)


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
