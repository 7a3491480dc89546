"""Losses, and weights of the classes in them.

With probabilities p, targets t and weights w of the classes, a clip costs the sum over answers of
`-w t (1 - p) ** gamma log(p)`. The answers are the classes, or yes and no for each class if clips
have any number of labels. The formula holds for smoothed and mixed targets too: their loss is the
mean of the losses of the answers that they mix.

Source of gamma: focal loss (arXiv 1708.02002), equation 4. Of the weights: arXiv 1901.05555.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from vivit_jax.heads import PerHead, map_heads


def cross_entropy(
    logits: jax.Array,
    targets: jax.Array,
    focal_gamma: float = 0.0,
    weights: np.ndarray | None = None,
) -> jax.Array:
    """Mean over clips of the cross-entropy of a softmax, in float32.

    Args:
        logits: [b classes].
        targets: [b classes], which sum to 1.
        focal_gamma: the larger, the less clips count that are right already; 0: not at all.
        weights: float32 [classes]; None: all are 1.

    Raises:
        AssertionError: the shapes differ, which would otherwise be broadcast.
    """
    chex.assert_equal_shape((logits, targets))
    logits = logits.astype(jnp.float32)
    if weights is not None:
        targets = targets * weights
    if focal_gamma:
        targets = targets * _power(1 - jax.nn.softmax(logits), focal_gamma)
    return optax.softmax_cross_entropy(logits, targets).mean()


def binary_cross_entropy(
    logits: jax.Array,
    targets: jax.Array,
    focal_gamma: float = 0.0,
    weights: np.ndarray | None = None,
) -> jax.Array:
    """Mean over clips and classes of the binary cross-entropy of sigmoids, in float32.

    A weight counts for both answers, so that 0.5 stays the probability where the answer changes.

    Args:
        logits: [b classes].
        targets: [b classes], each in [0, 1].
        focal_gamma: see `cross_entropy`.
        weights: see `cross_entropy`.

    Raises:
        AssertionError: the shapes differ, which would otherwise be broadcast.
    """
    chex.assert_equal_shape((logits, targets))
    logits = logits.astype(jnp.float32)
    yes, no = targets, 1 - targets
    if focal_gamma:
        yes = yes * _power(jax.nn.sigmoid(-logits), focal_gamma)
        no = no * _power(jax.nn.sigmoid(logits), focal_gamma)
    losses = -yes * jax.nn.log_sigmoid(logits) - no * jax.nn.log_sigmoid(-logits)
    return (losses if weights is None else losses * weights).mean()


def _power(x: jax.Array, exponent: float) -> jax.Array:
    """A power whose gradient at 0 is finite, for any exponent above 0."""
    return jnp.maximum(x, jnp.finfo(jnp.float32).tiny) ** exponent


def class_weights(counts: PerHead[np.ndarray], beta: float) -> PerHead[np.ndarray]:
    """Weights of classes by their numbers of training videos, float32 [classes] of each head.

    A class with n videos has the weight (1 - beta) / (1 - beta ** n), the inverse of the effective
    number of videos; n counts as 1 if there are none. With `beta` 1 this is 1 / n, and with 0 all
    weights are equal. Their mean over the labels of the training videos is 1.

    Source: arXiv 1901.05555, proposition 1 and section 4; there, the mean over classes is 1.

    Args:
        counts: int [classes] of each head.
        beta: from 0 to 1.
    """

    def of_head(counts: np.ndarray) -> np.ndarray:
        videos = np.maximum(counts, 1).astype(float)
        weights = 1 / videos if beta == 1 else (1 - beta) / (1 - beta**videos)
        return (weights * counts.sum() / (weights * counts).sum()).astype(np.float32)

    return map_heads(of_head, counts)
