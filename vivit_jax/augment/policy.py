"""From recorded clips to what the model sees: augmentation in training, and normalisation."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from vivit_jax.augment.color import random_color_drop, random_color_jitter
from vivit_jax.augment.geometry import Clip, mirror, random_erase
from vivit_jax.augment.randaugment import random_augment
from vivit_jax.parallel.mesh import on_each_device
from vivit_jax.video.preprocessing import Preprocessing


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What happens to a clip on the device; by default nothing.

    Attributes:
        flip: probability of mirroring; see `swap_labels` where left and right are part of a label.
        color_jitter: probability of `random_color_jitter`.
        color_drop: probability of greyscale.
        randaugment_layers: see `random_augment`. The original ViViT has either this or changes
            of colour.
        randaugment_magnitude: see `random_augment`.
        randaugment_geometry: whether it rotates, shears and moves too; the original does not.
        erase: probability of `random_erase`.
        mixup_alpha: see `mix`, which follows `augment` and takes the targets too.
        cutmix_alpha: see `mix`.
        repeats: clips of each video, which follow one another in a batch.
    """

    flip: float = 0.0
    color_jitter: float = 0.0
    color_drop: float = 0.0
    randaugment_layers: int = 0
    randaugment_magnitude: float = 10.0
    randaugment_geometry: bool = True
    erase: float = 0.0
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    repeats: int = 1


def augment(key: jax.Array, clips: Clip, is_mirrored: jax.Array, policy: Augmentation) -> Clip:
    """Augments the clips of a batch, one by one; what is recorded together changes together.

    The order is that of the original: mirroring, RandAugment, changes of colour; erasing is last.
    Until the end all stays in whole levels, so that a pass over a clip moves few bytes.

    Args:
        key: random key.
        clips: a dict of `rgb` uint8 [b t h w 3] and/or `depth` uint16 [b t h w 1].
        is_mirrored: bool [b], drawn with the probability `policy.flip`.
        policy: what happens.

    Returns:
        float32: `rgb` in [0, 1], `depth` in the units of its sensor.
    """

    def one(key: jax.Array, clip: Clip, is_mirrored: jax.Array) -> Clip:
        randaugment_key, jitter_key, drop_key, erase_key = jax.random.split(key, 4)
        if policy.flip:
            clip = mirror(clip, is_mirrored)
        clip = random_augment(
            randaugment_key,
            clip,
            num_layers=policy.randaugment_layers,
            magnitude=policy.randaugment_magnitude,
            geometry=policy.randaugment_geometry,
        )
        if 'rgb' in clip:
            rgb = clip['rgb']
            if policy.color_jitter:
                rgb = random_color_jitter(jitter_key, rgb, probability=policy.color_jitter)
            if policy.color_drop:
                rgb = random_color_drop(drop_key, rgb, policy.color_drop)
            clip = {**clip, 'rgb': rgb}
        if policy.erase:
            clip = random_erase(erase_key, clip, policy.erase)
        return clip

    clips = _clip_by_clip(one, jax.random.split(key, len(is_mirrored)), clips, is_mirrored)
    convert = {'rgb': to_unit_range, 'depth': lambda depth: depth.astype(jnp.float32)}
    return {name: convert[name](x) for name, x in clips.items()}


def to_unit_range(rgb: jax.Array) -> jax.Array:
    """uint8 to float32 in [0, 1]."""
    return rgb.astype(jnp.float32) / 255


def normalize(clip: jax.Array, spec: Preprocessing) -> jax.Array:
    """Float clips in [0, 1] to the value range and colour order of `spec`."""
    low, high = spec.value_range
    if spec.color_order == 'bgr':
        clip = clip[..., ::-1]
    return low + (high - low) * clip


def _clip_by_clip(change: Callable[..., Clip], *batch) -> Clip:
    """Calls `change` for one clip after another, so that each goes only through what it draws.

    Every device of the mesh in use has a loop over its own part of the batch: the compiler would
    gather the batch for one.
    """

    def loop(*batch) -> Clip:
        return jax.lax.map(lambda clip: change(*clip), batch)

    return on_each_device(loop, *batch)
