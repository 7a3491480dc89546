"""Losses."""

import jax
import jax.numpy as jnp
import optax


def smooth_one_hot(labels: jax.Array, num_classes: int, smoothing: float) -> jax.Array:
    """Targets float32 [b classes] of int labels [b].

    With smoothing s a target is (1 - s) on the label plus s / classes everywhere.

    Source: Inception-v3 (arXiv 1512.00567), section 7.
    """
    return optax.smooth_labels(jax.nn.one_hot(labels, num_classes), smoothing)


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean cross-entropy of logits and targets [b classes], in float32; targets sum to 1."""
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets).mean()
