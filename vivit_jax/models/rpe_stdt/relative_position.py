"""Attention logits that depend on how far tokens are apart."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from vivit_jax.models.rpe_stdt.clusters import count_clusters, pair_clusters


class RelativePosition(nn.Module):
    """The terms `(q_i · R^K[:, I(i, j)] + k_j · R^Q[:, I(j, i)]) / √d_head` of the logits.

    I is the cluster of a pair of tokens, see `pair_clusters`. The tables start at zero.

    Source: the thesis on RPE-STDT, equations 3.6 to 3.11; iRPE (arXiv 2107.14222), whose
    contextual mode on queries and keys this is.

    Attributes:
        grid: places of the tokens after the class token, along each axis.
        ratio, function, method: of `pair_clusters`.
        terms: `'both'`, `'query'`, the one with R^K alone, or `'key'`, the one with R^Q.
        shared_heads: whether the heads have one pair of tables, else one each.
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
            places: int [b n], the tokens of the whole sequence, class token included, that these
                are; None: all in order.
        """
        num_heads, head_dim = query.shape[-2:]
        clusters = jnp.asarray(pair_clusters(self.grid, self.ratio, self.function, self.method))
        if places is not None:
            clusters = clusters[places[:, :, None], places[:, None, :]]
        num_clusters = count_clusters(self.grid, self.ratio, self.method)
        shape = (1 if self.shared_heads else num_heads, head_dim, num_clusters)

        def term(name: str, x: jax.Array) -> jax.Array:
            table = self.param(name, nn.initializers.zeros, shape).astype(x.dtype)
            # First with every cluster, then with that of every token: never [n n d].
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
    """Picks from products with clusters [b k q c] by clusters [q n] or [b q n]: [b k q n]."""
    indices = clusters[None, None] if clusters.ndim == 2 else clusters[:, None]
    return jnp.take_along_axis(products, indices, axis=-1, mode='promise_in_bounds')


def _of_pairs_forward(products: jax.Array, clusters: jax.Array, num_clusters: int) -> tuple:
    return _of_pairs(products, clusters, num_clusters), clusters


def _of_pairs_backward(num_clusters: int, clusters: jax.Array, gradient: jax.Array) -> tuple:
    # A scatter would add many to few places one after the other; a product does so at once.
    is_cluster = jax.nn.one_hot(clusters, num_clusters, dtype=gradient.dtype)
    letters = 'bkqn,qnc->bkqc' if clusters.ndim == 2 else 'bkqn,bqnc->bkqc'
    return jnp.einsum(letters, gradient, is_cluster), None


_of_pairs.defvjp(_of_pairs_forward, _of_pairs_backward)
