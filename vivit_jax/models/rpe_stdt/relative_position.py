"""Attention logits that depend on the distance between tokens."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from vivit_jax.models.rpe_stdt.clusters import count_clusters, pair_clusters


class RelativePosition(nn.Module):
    """The terms `(q_i · R^K[:, I(i, j)] + k_j · R^Q[:, I(j, i)]) / √d_head` of the logits.

    I is the cluster of a pair of tokens, see `pair_clusters`. The tables start at zero.

    Source: Yujun Ma, Deep learning for action recognition in videos (PhD thesis, Massey University,
    2024), equations 3.6 to 3.11; contextual mode on queries and keys of iRPE (arXiv 2107.14222).

    Attributes:
        grid: the number of places along each axis of the tokens after the class token.
        ratio, function, method: see `pair_clusters`.
        terms: `'both'`, `'query'`, only the term with R^K, or `'key'`, only the term with R^Q.
        shared_heads: whether all heads share one pair of tables; else each head has its own pair.
    """

    grid: tuple[int, ...]
    ratio: float = 1.5
    function: str = 'sectioned'
    method: str = 'product'
    terms: str = 'both'
    shared_heads: bool = True

    @nn.compact
    def __call__(
        self, query: jax.Array, key: jax.Array, places: jax.Array | None = None
    ) -> jax.Array:
        """Logits, float32 [b k q n].

        Args:
            query, key: [b n k d].
            places: int [b n], the positions of the n tokens in the whole sequence, in which the
                class token has position 0; None: the n tokens are the whole sequence.
        """
        num_heads, head_dim = query.shape[-2:]
        clusters = jnp.asarray(pair_clusters(self.grid, self.ratio, self.function, self.method))
        if places is not None:
            clusters = clusters[places[:, :, None], places[:, None, :]]
        num_clusters = count_clusters(self.grid, self.ratio, self.method)
        shape = (1 if self.shared_heads else num_heads, head_dim, num_clusters)

        def term(name: str, x: jax.Array) -> jax.Array:
            table = self.param(name, nn.initializers.zeros, shape).astype(x.dtype)
            # One product for each token and cluster, from which pairs of tokens pick theirs, so
            # that there is never an array [n n d].
            products = jnp.matmul(
                x.swapaxes(1, 2) * head_dim**-0.5, table, preferred_element_type=jnp.float32
            )
            return _of_pairs(products, clusters, num_clusters)

        logits = []
        if self.terms in ('both', 'query'):
            logits.append(term('key_table', query))
        if self.terms in ('both', 'key'):
            logits.append(term('query_table', key).swapaxes(2, 3))
        return sum(logits)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _of_pairs(products: jax.Array, clusters: jax.Array, num_clusters: int) -> jax.Array:
    """Picks from products [b k q c] the product of each pair's cluster, [q n] or [b q n]."""
    indices = clusters[None, None] if clusters.ndim == 2 else clusters[:, None]
    return jnp.take_along_axis(products, indices, axis=-1, mode='promise_in_bounds')


def _of_pairs_forward(products: jax.Array, clusters: jax.Array, num_clusters: int) -> tuple:
    return _of_pairs(products, clusters, num_clusters), clusters


def _of_pairs_backward(num_clusters: int, clusters: jax.Array, gradient: jax.Array) -> tuple:
    # A scatter would add many values to few places one after the other. A matrix product does the
    # same in parallel.
    is_cluster = jax.nn.one_hot(clusters, num_clusters, dtype=gradient.dtype)
    letters = 'bkqn,qnc->bkqc' if clusters.ndim == 2 else 'bkqn,bqnc->bkqc'
    return jnp.einsum(letters, gradient, is_cluster), None


_of_pairs.defvjp(_of_pairs_forward, _of_pairs_backward)
