"""RandAugment: a few operations, drawn at random, all of one magnitude.

A clip is a dict of `rgb` uint8 [t h w 3] and/or `depth` uint16 [t h w 1]. Changes of colour leave
depth alone, changes of place treat both alike, and all treat every frame alike.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from vivit_jax.augment.color import (
    adjust_contrast,
    adjust_saturation,
    adjust_sharpness,
    scale_brightness,
    to_levels,
)
from vivit_jax.augment.geometry import Clip, frame_size, random_cutout, rotation, warp
from vivit_jax.augment.tone import (
    auto_contrast,
    equalize,
    invert,
    posterize,
    solarize,
    solarize_add,
)

Operation = Callable[[Clip], Clip]


def random_augment(
    key: jax.Array, clip: Clip, *, num_layers: int, magnitude: float, geometry: bool = True
) -> Clip:
    """Applies `num_layers` operations drawn uniformly, with repetition, from `operations`.

    Under `jax.vmap` every clip goes through all operations; in a loop, through the drawn ones.

    Args:
        key: random key.
        clip: a dict of frames.
        num_layers: how many operations follow one another; ViViT has 2.
        magnitude: from 0 to 10 and beyond; ViViT has 15 on Epic Kitchens and 20 on
            Something-Something v2.
        geometry: see `operations`; ViViT has none.

    Source: arXiv 1909.13719.
    """
    for layer_key in jax.random.split(key, num_layers):
        draw_key, operation_key = jax.random.split(layer_key)
        branches = list(operations(operation_key, magnitude, geometry).values())
        clip = jax.lax.switch(jax.random.randint(draw_key, (), 0, len(branches)), branches, clip)
    return clip


def operations(key: jax.Array, magnitude: float, geometry: bool = True) -> dict[str, Operation]:
    """What RandAugment chooses from; the key places the cutout and draws directions.

    Not all grow with the magnitude: from 10 on `solarize` and from 20 on `posterize` leave a clip
    as it is, and so do the four that scale by `factor` at 5.

    Args:
        key: random key.
        magnitude: of all operations.
        geometry: whether there are rotation, shear and translation.

    Source: arXiv 1909.13719 for the geometric operations, in frames of 224 pixels, and the
    training of ViViT (Scenic, `dataset_lib/video_ops.py`), which leaves them out, for the others.
    Differs from it: `contrast` keeps the mean luma, where a bug there keeps white; the threshold
    of `solarize` does not overflow 8 bits; `sharpness` does not mix neighbouring frames; blends
    are rounded to whole levels, not cut off.
    """
    strength = magnitude / 10
    factor = 0.1 + 1.8 * strength
    colors = {
        'auto_contrast': auto_contrast,
        'equalize': equalize,
        'invert': invert,
        'posterize': functools.partial(posterize, num_bits=int(4 * strength)),
        'solarize': functools.partial(solarize, threshold=int(256 * strength)),
        'solarize_add': functools.partial(solarize_add, addition=int(110 * strength)),
        'color': functools.partial(adjust_saturation, factor=factor),
        'contrast': functools.partial(adjust_contrast, factor=factor),
        'brightness': functools.partial(scale_brightness, factor=factor),
        'sharpness': functools.partial(adjust_sharpness, factor=factor),
    }
    return {
        'identity': lambda clip: clip,
        'cutout': functools.partial(random_cutout, key, half_side_px=40 * strength),
        **{name: functools.partial(_recolor, change) for name, change in colors.items()},
        **(_geometric(key, strength) if geometry else {}),
    }


def _recolor(change: Callable[[jax.Array], jax.Array], clip: Clip) -> Clip:
    return {**clip, 'rgb': to_levels(change(clip['rgb']))} if 'rgb' in clip else clip


def _geometric(key: jax.Array, strength: float) -> dict[str, Operation]:
    """Shears and translations keep the upper left corner in place or move all by as much."""

    def rotate(amount, height, width):
        return rotation(amount * jnp.pi / 180, height, width)

    # By how much, and the map from places after it to places before it.
    maps = {
        'rotate': (30, rotate),
        'shear_x': (0.3, lambda amount, *_: [[1, amount, 0], [0, 1, 0]]),
        'shear_y': (0.3, lambda amount, *_: [[1, 0, 0], [amount, 1, 0]]),
        'translate_x': (100 / 224, lambda amount, *size: [[1, 0, amount * min(size)], [0, 1, 0]]),
        'translate_y': (100 / 224, lambda amount, *size: [[1, 0, 0], [0, 1, amount * min(size)]]),
    }

    def apply(most: float, to_matrix: Callable, clip: Clip) -> Clip:
        amount = jax.random.rademacher(key, (), jnp.float32) * most * strength
        return warp(clip, to_matrix(amount, *frame_size(clip)))

    return {name: functools.partial(apply, *map_) for name, map_ in maps.items()}
