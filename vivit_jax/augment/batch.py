"""From a batch of recorded clips to what a training step sees."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vivit_jax.augment.color import random_color_drop, random_color_jitter
from vivit_jax.augment.geometry import Clip, mirror, random_erase
from vivit_jax.augment.inputs import normalize_clips
from vivit_jax.augment.mixing import mix
from vivit_jax.augment.policy import Augmentation
from vivit_jax.augment.randaugment import random_augment
from vivit_jax.augment.targets import make_targets, swap_labels
from vivit_jax.heads import PerHead, map_heads
from vivit_jax.parallel.mesh import on_each_device
from vivit_jax.video.preprocessing import Preprocessing, to_unit_range


class TrainInputs(NamedTuple):
    """What a training step computes its loss and accuracy from.

    Attributes:
        clips: `rgb` float32 [b t h w 3] and/or `depth` float32 [b t h w 1], in the value range and
            colour order of the preprocessing.
        targets: probabilities float32 [b classes], of each head, see `make_targets`.
        label: int32 [b], of each head: the class of every clip before mixing; or float32
            [b classes], if clips have any number of labels.
    """

    clips: Clip
    targets: PerHead[jax.Array]
    label: PerHead[jax.Array]


def augment_batch(
    keys: tuple[jax.Array, jax.Array, jax.Array],
    batch: dict[str, PerHead[jax.Array]],
    policy: Augmentation,
    *,
    spec: Preprocessing,
    num_classes: PerHead[int],
    label_smoothing: float = 0.0,
    mirrored: PerHead[np.ndarray] | None = None,
) -> TrainInputs:
    """Makes the inputs of a training step: mirrors, augments, mixes and normalizes.

    Args:
        keys: random keys of the mirroring, of the other changes of each clip, and of the mixing.
        batch: `rgb` uint8 [b t h w 3] and/or `depth` uint16 [b t h w 1], and `label` int32 [b], of
            each head, or float32 [b classes].
        policy: the settings.
        spec: value range and colour order of the result.
        num_classes: of each head.
        label_smoothing: see `make_targets`.
        mirrored: class of the mirrored clip for each class, see `mirrored_labels`; None: the same.
    """
    mirror_key, clips_key, mix_key = keys
    label = batch['label']
    pixels = {kind: batch[kind] for kind in ('rgb', 'depth') if kind in batch}
    num_clips = len(next(iter(pixels.values())))
    is_mirrored = jax.random.bernoulli(mirror_key, policy.flip, (num_clips,))
    label = swap_labels(label, is_mirrored, mirrored)
    targets = map_heads(
        lambda label, size: make_targets(label, size, label_smoothing), label, num_classes
    )
    clips = augment_clips(clips_key, pixels, is_mirrored, policy)
    # The mean of a depth and of no measurement would be a depth where nothing is.
    clips = normalize_clips(clips, spec)
    clips, targets = mix(
        mix_key, clips, targets, policy.mixup_alpha, policy.cutmix_alpha, policy.repeats
    )
    return TrainInputs(clips, targets, label)


def augment_clips(
    key: jax.Array, clips: Clip, is_mirrored: jax.Array, policy: Augmentation
) -> Clip:
    """Augments the clips of a batch, one by one; RGB and depth of a clip move together.

    The order is the original ViViT's: mirroring, RandAugment, changes of colour; erasing is last.
    All pixels stay whole levels until the end, so that a pass over a clip moves few bytes.

    Args:
        key: random key.
        clips: a dict of `rgb` uint8 [b t h w 3] and/or `depth` uint16 [b t h w 1].
        is_mirrored: bool [b], drawn with the probability `policy.flip`.
        policy: the settings.

    Returns:
        float32: `rgb` in [0, 1], `depth` in the units of the sensor.
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


def _clip_by_clip(change: Callable[..., Clip], *batch) -> Clip:
    """Calls `change` for one clip after another, so that each goes only through what it draws.

    Every device of the mesh in use has a loop over its own part of the batch: the compiler would
    gather the batch for one.
    """

    def loop(*batch) -> Clip:
        return jax.lax.map(lambda clip: change(*clip), batch)

    return on_each_device(loop, *batch)
