"""Losses."""

import chex
import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean cross-entropy of logits and targets [b classes], in float32; targets sum to 1.

    Raises:
        AssertionError: the shapes differ, which would otherwise be broadcast.
    """
    chex.assert_equal_shape((logits, targets))
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets).mean()


def binary_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean over clips and classes of the binary cross-entropy, in float32.

    Args:
        logits: [b classes]; the sigmoid of each is the probability of its class.
        targets: [b classes], each in [0, 1].

    Raises:
        AssertionError: the shapes differ, which would otherwise be broadcast.
    """
    chex.assert_equal_shape((logits, targets))
    return optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), targets).mean()
