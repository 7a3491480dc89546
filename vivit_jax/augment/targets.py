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
        label: int32 [b] of each head.
        is_mirrored: bool [b].
        mirrored: from `mirrored_labels`; None leaves all labels.
    """
    if mirrored is None:
        return label
    return map_heads(
        lambda label, swap: jnp.where(is_mirrored, jnp.asarray(swap)[label], label), label, mirrored
    )


def smooth_one_hot(labels: jax.Array, num_classes: int, smoothing: float) -> jax.Array:
    """Targets float32 [b classes] of int labels [b].

    With smoothing s a target is (1 - s) on the label plus s / classes everywhere.

    Source: Inception-v3 (arXiv 1512.00567), section 7.
    """
    return optax.smooth_labels(jax.nn.one_hot(labels, num_classes), smoothing)
