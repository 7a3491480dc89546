"""Cross-entropies, and the logits that have the smallest."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vivit_jax.evaluation.views import probabilities

_SCALES = tuple(2.0**power for power in range(10))


def cross_entropies(logits: jax.Array, targets: jax.Array, is_multi_label: bool) -> jax.Array:
    """The loss of each example, float32 [n].

    Args:
        logits: [n classes].
        targets: [n classes], the probability of each class.
        is_multi_label: whether each class has a sigmoid, and the loss is the mean of their binary
            cross-entropies; otherwise the probabilities are a softmax.
    """
    logits = jnp.asarray(logits)
    if is_multi_label:
        return optax.sigmoid_binary_cross_entropy(logits, targets).mean(axis=-1)
    return optax.softmax_cross_entropy(logits, targets)


def calibrate(
    scores: np.ndarray, targets: np.ndarray, is_multi_label: bool
) -> tuple[float, np.ndarray]:
    """Finds `scale * (scores - threshold)`, the logits with the smallest loss on held-out examples.

    Of sigmoids, the threshold of each class makes their mean the part of the examples that have the
    class: there the derivative of the loss by the threshold is zero. A softmax needs no threshold.

    Source: Platt scaling (Platt 1999), with one scale for all classes, from 1 to 512.

    Args:
        scores: [n classes], of examples that their classifier was not trained on.
        targets: [n classes], 1 for each class of an example and 0 for the others.
        is_multi_label: see `cross_entropies`.

    Returns:
        The scale, and the thresholds, float32 [classes].
    """

    def loss(found: tuple[float, np.ndarray]) -> float:
        scale, threshold = found
        return float(cross_entropies(scale * (scores - threshold), targets, is_multi_label).mean())

    zeros = np.zeros(scores.shape[1], np.float32)
    return min(
        ((x, _thresholds(scores, targets, x) if is_multi_label else zeros) for x in _SCALES),
        key=loss,
    )


def _thresholds(scores: np.ndarray, targets: np.ndarray, scale: float) -> np.ndarray:
    wanted = targets.mean(axis=0)
    # A class that no example or every example has gets a probability below 1e-4 or above 1 - 1e-4.
    low, high = scores.min(axis=0) - 10 / scale, scores.max(axis=0) + 10 / scale
    for _ in range(30):
        middle = (low + high) / 2
        is_low = probabilities(scale * (scores - middle), is_multi_label=True).mean(axis=0) > wanted
        low, high = np.where(is_low, middle, low), np.where(is_low, high, middle)
    return ((low + high) / 2).astype(np.float32)
