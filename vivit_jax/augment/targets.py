"""Labels of a batch, and the probabilities that a model is trained towards."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vivit_jax.heads import PerHead, map_heads


def swap_labels(
    label: PerHead[jax.Array], is_mirrored: jax.Array, mirrored: PerHead[np.ndarray] | None
) -> PerHead[jax.Array]:
    """Replaces the labels of mirrored clips.

    Args:
        label: int32 [b] of each head, or float32 [b classes], see `make_targets`.
        is_mirrored: bool [b].
        mirrored: from `mirrored_labels`; None leaves all labels.
    """
    if mirrored is None:
        return label
    return map_heads(lambda label, swap: _swap(label, is_mirrored, swap), label, mirrored)


def _swap(label: jax.Array, is_mirrored: jax.Array, swap: np.ndarray) -> jax.Array:
    if label.ndim == 1:
        return jnp.where(is_mirrored, jnp.asarray(swap)[label], label)
    swapped = jnp.zeros_like(label).at[:, swap].max(label)
    return jnp.where(is_mirrored[:, None], swapped, label)


def make_targets(label: jax.Array, num_classes: int, smoothing: float) -> jax.Array:
    """What a classifier is trained towards, float32 [b classes], each in [0, 1].

    Args:
        label: int32 [b], the class of each clip: see `smooth_one_hot`. Or float32 [b classes], 1
            for each of its classes and 0 for the others: every class then is a question of its own
            with two answers, and its target is (1 - smoothing) · label + smoothing / 2.
        num_classes: of the classifier.
        smoothing: part of a target that all answers share.
    """
    if label.ndim == 1:
        return smooth_one_hot(label, num_classes, smoothing)
    return (1 - smoothing) * label + smoothing / 2


def smooth_one_hot(labels: jax.Array, num_classes: int, smoothing: float) -> jax.Array:
    """Targets float32 [b classes] of int labels [b].

    With smoothing s a target is (1 - s) on the label plus s / classes everywhere.

    Source: Inception-v3 (arXiv 1512.00567), section 7.
    """
    return optax.smooth_labels(jax.nn.one_hot(labels, num_classes), smoothing)
