"""k-NN attention: every query attends to the keys with the largest logits only."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from vivit_jax.layers.specification import num_neighbours


def hide_distant(logits: jax.Array, knn_ratio: float) -> jax.Array:
    """Sets all but the k largest logits of each row to -inf.

    Source: k-NN attention, KVT (arXiv 2106.00515), section 3.2.

    Args:
        logits: float32 [... n], of one query and all keys.
        knn_ratio: sets k, see `num_neighbours`. With 1, the logits stay as they are.
    """
    if knn_ratio == 1:
        return logits
    is_near = is_among_largest(logits, num_neighbours(knn_ratio, logits.shape[-1]))
    # The gradient needs no mask, because the gradient of a logit is zero where its weight is zero.
    return logits + lax.stop_gradient(jnp.where(is_near, 0.0, -jnp.inf))


def is_among_largest(x: jax.Array, number: int) -> jax.Array:
    """Whether each element is one of exactly `number` largest of its row; of equals, the first are.

    Two searches take the place of a sort, which on a CPU takes four times as long.

    Args:
        x: float32 [... n]; NaN is larger than any number.
        number: 1 to n.

    Returns:
        bool [... n].
    """
    bits, sign = lax.bitcast_convert_type(x, jnp.uint32), jnp.uint32(1 << 31)
    bits = jnp.where(bits == sign, 0, bits)  # -0 equals 0
    keys = jnp.where(bits >= sign, ~bits, bits | sign)  # integers in the order of x

    def count(condition: jax.Array) -> jax.Array:
        return condition.sum(-1, keepdims=True, dtype=jnp.int32)

    rows = (*x.shape[:-1], 1)
    smallest = _search(lambda key: count(keys >= key) >= number, rows, num_bits=32)
    room = number - count(keys > smallest)
    is_smallest, places = keys == smallest, jnp.arange(x.shape[-1], dtype=jnp.uint32)
    end = _search(
        lambda end: count(is_smallest & (places < end)) <= room, rows, x.shape[-1].bit_length()
    )
    return (keys > smallest) | (is_smallest & (places < end))


def _search(
    holds: Callable[[jax.Array], jax.Array], shape: tuple[int, ...], num_bits: int
) -> jax.Array:
    """The largest unsigned integers that hold, uint32, bit by bit; smaller ones hold too."""

    def try_bit(index: jax.Array, found: jax.Array) -> jax.Array:
        larger = found | (jnp.uint32(1 << (num_bits - 1)) >> index.astype(jnp.uint32))
        return jnp.where(holds(larger), larger, found)

    return lax.fori_loop(0, num_bits, try_bit, jnp.zeros(shape, jnp.uint32))
