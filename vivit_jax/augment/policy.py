"""From uint8 clips to what the model sees: augmentation in training, and normalisation."""

import dataclasses

import jax
import jax.numpy as jnp

from vivit_jax.augment.color import random_color_drop, random_color_jitter
from vivit_jax.augment.geometry import random_flip
from vivit_jax.augment.randaugment import random_augment
from vivit_jax.data.preprocessing import Preprocessing


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What happens to a clip on the device; by default nothing.

    Attributes:
        flip: probability of mirroring; 0 wherever left and right are part of a label.
        color_jitter: probability of `random_color_jitter`.
        color_drop: probability of greyscale.
        randaugment_layers: see `random_augment`. The original ViViT has either this or changes
            of colour.
        randaugment_magnitude: see `random_augment`.
        mixup_alpha: see `mixup`, which follows `augment` and takes the targets too.
    """

    flip: float = 0.0
    color_jitter: float = 0.0
    color_drop: float = 0.0
    randaugment_layers: int = 0
    randaugment_magnitude: float = 10.0
    mixup_alpha: float = 0.0


def augment(key: jax.Array, rgb: jax.Array, policy: Augmentation) -> jax.Array:
    """Augments uint8 clips [b t h w 3], one by one; returns float32 in [0, 1].

    The order is that of the original: mirroring, RandAugment, changes of colour.
    """

    def one(key: jax.Array, clip: jax.Array) -> jax.Array:
        flip_key, jitter_key, drop_key, randaugment_key = jax.random.split(key, 4)
        if policy.flip:
            clip = random_flip(flip_key, clip, policy.flip)
        clip = random_augment(
            randaugment_key,
            clip,
            num_layers=policy.randaugment_layers,
            magnitude=policy.randaugment_magnitude,
        )
        if policy.color_jitter:
            clip = random_color_jitter(jitter_key, clip, probability=policy.color_jitter)
        if policy.color_drop:
            clip = random_color_drop(drop_key, clip, policy.color_drop)
        return clip

    return jax.vmap(one)(jax.random.split(key, len(rgb)), to_unit_range(rgb))


def to_unit_range(rgb: jax.Array) -> jax.Array:
    """uint8 to float32 in [0, 1]."""
    return rgb.astype(jnp.float32) / 255


def normalize(clip: jax.Array, spec: Preprocessing) -> jax.Array:
    """Float clips in [0, 1] to the value range and colour order of `spec`."""
    low, high = spec.value_range
    if spec.color_order == 'bgr':
        clip = clip[..., ::-1]
    return low + (high - low) * clip
