"""Mixing of the clips of a batch, with their targets."""

import jax
import jax.numpy as jnp

Targets = jax.Array | dict[str, jax.Array]


def mixup(
    key: jax.Array, clip: jax.Array, targets: Targets, alpha: float
) -> tuple[jax.Array, Targets]:
    """Replaces every clip and its targets by a mixture with those before it in the batch.

    x_i becomes w_i x_i + (1 - w_i) x_(i-1) with w_i ~ Beta(alpha, alpha), for clips and targets
    alike; the first clip's partner is the last. It commutes with normalisation. Costs one pass
    over the clips, and of a sharded batch each device sends its neighbour one clip.

    Args:
        key: random key.
        clip: float [b ...], the global batch.
        targets: probabilities [b classes], or a dict of them per head.
        alpha: the smaller, the less is mixed; above 0.

    Returns:
        The mixed clips and targets.

    Source: arXiv 1710.09412.
    Differs from the original ViViT, which draws one weight per device and mixes the device's
    clips with themselves in reverse: here the result does not depend on the number of devices,
    and the weight is each clip's own since its devices held only a few clips.
    """
    weight = jax.random.beta(key, alpha, alpha, (len(clip),))

    def mix(x: jax.Array) -> jax.Array:
        own = weight.reshape(-1, *(1,) * (x.ndim - 1))
        return own * x + (1 - own) * jnp.roll(x, 1, axis=0)

    return jax.tree.map(mix, (clip, targets))
