"""Losses."""

import jax
import jax.numpy as jnp
import optax


def cross_entropy(
    logits: jax.Array, labels: jax.Array, *, label_smoothing: float = 0.0
) -> jax.Array:
    """Mean cross-entropy of logits [b classes] and int labels [b], in float32.

    With smoothing s the target is (1 - s) on the label plus s / classes everywhere.

    Source: Inception-v3 (arXiv 1512.00567), section 7.
    """
    logits = logits.astype(jnp.float32)
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), label_smoothing)
    return optax.softmax_cross_entropy(logits, targets).mean()
