"""Pooling of tokens: by attention, and by their changes."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vivit_jax.layers.grid import cell_weights, half_weights
from vivit_jax.layers.specification import TransformerSpecification


class AttentionPool(nn.Module):
    """A learned query for each head, which attends to all tokens of all time indices.

    Head k gives token x of time index t the score `q_k · LN(x) / √d + b_{k,t}`, and takes the
    values `LN(x) W_k` by the softmax of the scores. At first q is zero and b is random: each head
    takes means over the places, and looks at some times more than at others.

    Source: the attentive probe of V-JEPA (arXiv 2404.08471, section 4.2) and the pooling of
    VideoPrism (arXiv 2402.13217, section 3.2). Differs from both: the projection of the keys is
    part of the query, since a constant query needs no other; LN has no parameters, since scales and
    shifts are part of the query and of W; b tells times apart; and no MLP follows.

    The parameters are `queries` [k d], `time_bias` [k t] and `value`, with a `kernel` [d k e] and a
    `bias` [k e].
    """

    spec: TransformerSpecification

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        """Maps tokens [b t n d] to features [b d]."""
        (_, time, _, width), heads = tokens.shape, self.spec.num_heads
        tokens = nn.LayerNorm(
            epsilon=self.spec.layer_norm_eps, dtype=jnp.float32, use_scale=False, use_bias=False
        )(tokens)
        queries = self.param('queries', nn.initializers.zeros, (heads, width))
        time_bias = self.param('time_bias', nn.initializers.normal(1.0), (heads, time))
        scores = jnp.einsum('btnd,kd->bktn', tokens, queries) / width**0.5
        scores = scores + time_bias[:, :, None]
        weights = jax.nn.softmax(scores, axis=(-2, -1))
        taken = jnp.einsum('bktn,btnd->bkd', weights, tokens)
        return _ValueOfHeads(heads, name='value')(taken)


class _ValueOfHeads(nn.Module):
    """Another linear map for each head: [b k d] to [b k·e]."""

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        shape = (width, self.heads, width // self.heads)

        def init(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            return nn.initializers.xavier_uniform()(key, (width, width)).reshape(shape)

        kernel = self.param('kernel', init, shape)
        bias = self.param('bias', nn.initializers.zeros, shape[1:])
        return (jnp.einsum('bkd,dke->bke', x, kernel) + bias).reshape(len(x), width)


def pool_changes(tokens: jax.Array, space: tuple[int, int]) -> jax.Array:
    """Tells how much tokens change over time in each part of the frame.

    The frame is divided into cells, see `cell_weights`. Of the mean token of each cell, the result
    is the root mean square of its differences from one time index to the next: over the whole
    clip, its first half and its second half. A still video gives almost zero (1e-3, so that the
    gradient is finite), and so does a clip of one time index.

    Source: motion maps sum the differences of pixels (Yang et al. 2012, "Recognizing actions using
    depth motion maps-based histograms of oriented gradients"); these are differences of tokens.
    Halves tell the order, as in the pyramids of Laptev et al. 2008 ("Learning realistic human
    actions from movies", section 3.2).

    Args:
        tokens: [b t n d], n in the order of rows.
        space: rows and columns, whose product is n.

    Returns:
        [b 3·cells·d].
    """
    weights = jnp.asarray(cell_weights(*space), tokens.dtype)
    cells = jnp.einsum('btnd,cn->btcd', tokens, weights)
    squares = jnp.square(jnp.diff(cells, axis=1))
    squares = jnp.einsum('btcd,pt->bpcd', squares, half_weights(squares.shape[1]))
    return jnp.sqrt(squares + 1e-6).reshape(len(tokens), -1)
