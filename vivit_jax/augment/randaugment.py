"""RandAugment: a few operations, drawn at random, all of one magnitude.

Clips are float [t h w 3] in [0, 1]; every operation treats all frames alike.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from vivit_jax.augment.color import adjust_contrast, adjust_saturation, adjust_sharpness


def random_augment(
    key: jax.Array, clip: jax.Array, *, num_layers: int, magnitude: float
) -> jax.Array:
    """Applies `num_layers` operations drawn uniformly, with repetition, from `operations`.

    Under `jax.vmap` a drawn branch costs as much as all of them: about 55 ms per layer for a clip
    of 32x224x224 on two CPU cores, half of it for the histogram of `equalize`. A loop over clips
    takes 5 ms, but makes every device gather the whole of a sharded batch.

    Args:
        key: random key.
        clip: float [t h w 3] in [0, 1].
        num_layers: how many operations follow one another; ViViT has 2.
        magnitude: from 0 to 10 and beyond; ViViT has 15 on Epic Kitchens and 20 on
            Something-Something v2.

    Source: arXiv 1909.13719.
    """
    for layer_key in jax.random.split(key, num_layers):
        draw_key, center_key = jax.random.split(layer_key)
        branches = list(operations(center_key, magnitude).values())
        clip = jax.lax.switch(jax.random.randint(draw_key, (), 0, len(branches)), branches, clip)
    return clip


def operations(key: jax.Array, magnitude: float) -> dict[str, Callable[[jax.Array], jax.Array]]:
    """What RandAugment chooses from; the key places the cutout.

    Not all grow with the magnitude: from 10 on `solarize` and from 20 on `posterize` leave a clip
    as it is, and so do the four that scale by `factor` at 5.

    Source: the training of ViViT (Scenic, `dataset_lib/video_ops.py`), which leaves out the
    geometric operations of the paper.
    Differs from it: `contrast` keeps the mean luma, where a bug there keeps white; the threshold
    of `solarize` does not overflow 8 bits; `sharpness` does not mix neighbouring frames; blends
    are not cut off to whole levels.
    """
    strength = magnitude / 10
    factor = 0.1 + 1.8 * strength
    return {
        'identity': lambda clip: clip,
        'auto_contrast': auto_contrast,
        'equalize': equalize,
        'invert': lambda clip: 1 - clip,
        'posterize': functools.partial(posterize, num_bits=int(4 * strength)),
        'solarize': functools.partial(solarize, threshold=int(256 * strength)),
        'solarize_add': functools.partial(solarize_add, addition=int(110 * strength)),
        'color': functools.partial(adjust_saturation, factor=factor),
        'contrast': functools.partial(adjust_contrast, factor=factor),
        'brightness': lambda clip: jnp.clip(factor * clip, 0, 1),
        'sharpness': functools.partial(adjust_sharpness, factor=factor),
        'cutout': functools.partial(random_cutout, key, half_side_px=40 * strength),
    }


def auto_contrast(clip: jax.Array) -> jax.Array:
    """Stretches every channel to the full range; leaves a channel of one value."""
    low, high = clip.min((0, 1, 2)), clip.max((0, 1, 2))
    stretched = (clip - low) / jnp.where(high > low, high - low, 1)
    return jnp.where(high > low, stretched, clip)


def equalize(clip: jax.Array) -> jax.Array:
    """Spreads every channel's 256 levels so that all are about equally frequent, as PIL does."""
    # A channel's levels follow those of another, so that one histogram and one table serve all.
    level = _to_level(clip) + 256 * jnp.arange(3)
    histogram = jnp.bincount(level.ravel(), length=3 * 256).reshape(3, 256)
    num_below = jnp.cumsum(histogram, axis=1) - histogram
    # A 255th of all pixels but those of the highest level.
    step = num_below.max(axis=1, keepdims=True, where=histogram > 0, initial=0) // 255
    table = jnp.minimum((num_below + step // 2) // jnp.maximum(step, 1), 255)
    return jnp.where(step[:, 0] > 0, table.ravel()[level] / 255, clip)


def posterize(clip: jax.Array, num_bits: int) -> jax.Array:
    """Keeps the upper bits of a level; all 8 or more leave it."""
    level = _to_level(clip)
    return (level - level % 2 ** (8 - num_bits)) / 255


def solarize(clip: jax.Array, threshold: int) -> jax.Array:
    """Inverts levels from `threshold` (0 to 256) up."""
    return jnp.where(_to_level(clip) < threshold, clip, 1 - clip)


def solarize_add(clip: jax.Array, addition: int) -> jax.Array:
    """Brightens the darker half of the levels by `addition` (0 to 255)."""
    return jnp.where(_to_level(clip) < 128, jnp.minimum(clip + addition / 255, 1), clip)


def random_cutout(key: jax.Array, clip: jax.Array, half_side_px: float) -> jax.Array:
    """Blackens a square around a random pixel, or what of it is in the frame.

    Its size is given for frames of 224 pixels; it grows and shrinks with the shorter side.
    """
    height, width = clip.shape[1:3]
    half_side_px = int(half_side_px * min(height, width) / 224)
    center = jax.random.randint(key, (2,), 0, jnp.array([height, width]))

    def is_near(center: jax.Array, size: int) -> jax.Array:
        offset = jnp.arange(size) - center
        return (-half_side_px <= offset) & (offset < half_side_px)

    hole = is_near(center[0], height)[:, None] & is_near(center[1], width)
    return jnp.where(hole[..., None], 0, clip)


def _to_level(clip: jax.Array) -> jax.Array:
    """The nearest of 256 levels."""
    return jnp.round(255 * clip).astype(jnp.int32)
