"""Losses."""

import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean cross-entropy of logits and targets [b classes], in float32; targets sum to 1."""
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets).mean()
