"""Mixing of the clips of a batch, with their targets."""

import jax
import jax.numpy as jnp

from vivit_jax.augment.geometry import Clip, frame_size, in_box
from vivit_jax.heads import PerHead


def mix(
    key: jax.Array,
    clips: Clip,
    targets: PerHead[jax.Array],
    mixup_alpha: float,
    cutmix_alpha: float,
    repeats: int = 1,
) -> tuple[Clip, PerHead[jax.Array]]:
    """Replaces every clip and its targets by a mixture with those before it in the batch.

    x_i becomes w_i x_i + (1 - w_i) x_(i-r); the first clips' partners are the last. In mixup w_i is
    a number from Beta(alpha, alpha), for clips and targets alike. In cutmix it is 0 in a box and 1
    around it, the same in all frames, and for targets its mean. The box has a random centre and
    covers a part 1 - w ~ Beta(alpha, alpha), unless it reaches out of the frame. Costs one pass
    over the clips, and of a sharded batch each device sends its neighbour r clips.

    Args:
        key: random key.
        clips: a dict of floats [b t h w c], the global batch.
        targets: probabilities [b classes], or a dict of them per head. They need not sum to 1: of
            any number of labels, the target of each class is mixed alone.
        mixup_alpha: the smaller, the less is mixed; 0: no mixup.
        cutmix_alpha: likewise. Where both are set each clip draws one of the two; with neither
            all stay.
        repeats: r, how many neighbours are of one video.

    Returns:
        The mixed clips and targets.

    Source: arXiv 1710.09412 (mixup), arXiv 1905.04899 (cutmix).
    Differs from the original ViViT, which draws one weight per device and mixes the device's
    clips with themselves in reverse: here the result does not depend on the number of devices,
    and the weight is each clip's own since its devices held only a few clips.
    """
    if not (mixup_alpha or cutmix_alpha):
        return clips, targets
    choice_key, mixup_key, cutmix_key = jax.random.split(key, 3)
    num_clips = len(next(iter(clips.values())))
    if mixup_alpha:
        weight = jax.random.beta(mixup_key, mixup_alpha, mixup_alpha, (num_clips, 1, 1, 1, 1))
    if cutmix_alpha:
        keys = jax.random.split(cutmix_key, num_clips)
        around = jax.vmap(lambda key: _around_box(key, cutmix_alpha, frame_size(clips)))(keys)
        around = around[:, None]
    if mixup_alpha and cutmix_alpha:
        weight = jnp.where(jax.random.bernoulli(choice_key, 0.5, weight.shape), weight, around)
    elif cutmix_alpha:
        weight = around
    share = weight.mean((1, 2, 3, 4))[:, None]
    return (
        jax.tree.map(lambda x: _mix(weight, x, repeats), clips),
        jax.tree.map(lambda x: _mix(share, x, repeats), targets),
    )


def _mix(own: jax.Array, x: jax.Array, repeats: int) -> jax.Array:
    return own * x + (1 - own) * jnp.roll(x, repeats, axis=0)


def _around_box(key: jax.Array, alpha: float, frame: tuple[int, int]) -> jax.Array:
    """1 around a random box and 0 in it, float32 [h w 1]."""
    area_key, center_key = jax.random.split(key)
    side = jnp.sqrt(jax.random.beta(area_key, alpha, alpha))
    sides = jnp.round(side * jnp.array(frame)).astype(jnp.int32)
    center = jax.random.randint(center_key, (2,), 0, jnp.array(frame))
    return 1 - in_box(center - sides // 2, sides, frame).astype(jnp.float32)
