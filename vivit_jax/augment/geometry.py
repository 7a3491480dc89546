"""Changes of place that keep a clip's size, the same for all frames and modalities.

A clip is a dict of what was recorded together: `rgb` uint8 [t h w 3] and/or `depth` uint16
[t h w 1], whose pixels lie on one another.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

Clip = dict[str, jax.Array]

_OUTSIDE = {'rgb': 128, 'depth': 0}  # grey, and what sensors give where they see nothing

ERASED_AREA = (0.02, 1 / 3)
ERASED_ASPECT = (0.3, 1 / 0.3)


def frame_size(clip: Clip) -> tuple[int, int]:
    """(height, width) in pixels."""
    return next(iter(clip.values())).shape[-3:-1]


def mirror(clip: Clip, is_mirrored: jax.Array) -> Clip:
    """Left to right, where the scalar says so."""
    return {name: jnp.where(is_mirrored, x[:, :, ::-1], x) for name, x in clip.items()}


def warp(clip: Clip, matrix: ArrayLike) -> Clip:
    """Moves pixels by an affine map, to the nearest; RGB from outside is grey and depth 0.

    Args:
        clip: a dict of frames.
        matrix: [2 3]; the pixel at (x, y) comes from `matrix @ (x, y, 1)`. A pixel's centre is at
            half a pixel.
    """
    height, width = frame_size(clip)
    matrix = jnp.asarray(matrix, jnp.float32)
    y, x = jnp.mgrid[:height, :width] + 0.5
    x, y = (jnp.floor(a * x + b * y + c).astype(jnp.int32) for a, b, c in matrix)
    is_inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    source = jnp.where(is_inside, width * y + x, height * width).ravel()

    def move(name: str, frames: jax.Array) -> jax.Array:
        pixels = frames.reshape(len(frames), height * width, -1)
        moved = jnp.take(pixels, source, axis=1, mode='fill', fill_value=_OUTSIDE[name])
        return moved.reshape(frames.shape)

    return {name: move(name, frames) for name, frames in clip.items()}


def rotation(angle: ArrayLike, height: int, width: int) -> jax.Array:
    """For `warp`: a turn around the centre, in radians, clockwise as one sees it."""
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    x, y = width / 2, height / 2
    return jnp.array([[cos, sin, x - cos * x - sin * y], [-sin, cos, y + sin * x - cos * y]])


def in_box(
    corner: tuple[ArrayLike, ArrayLike],
    size: tuple[ArrayLike, ArrayLike],
    frame: tuple[int, int],
) -> jax.Array:
    """Which pixels of a frame (height, width) are in a box, bool [h w 1].

    `corner` is its upper left pixel, (y, x), which may lie outside, as may a part of the box.
    """

    def is_between(start: ArrayLike, length: ArrayLike, end: int) -> jax.Array:
        position = jnp.arange(end)
        return (start <= position) & (position < start + length)

    rows, columns = map(is_between, corner, size, frame)
    return (rows[:, None] & columns)[..., None]


def random_cutout(key: jax.Array, clip: Clip, half_side_px: float) -> Clip:
    """Blackens a square around a random pixel, or what of it is in the frame.

    The size is given for frames of 224 pixels; it scales with the shorter side.
    """
    frame = frame_size(clip)
    half_side_px = int(half_side_px * min(frame) / 224)
    center = jax.random.randint(key, (2,), 0, jnp.array(frame))
    hole = in_box(center - half_side_px, (2 * half_side_px,) * 2, frame)
    return _replace(clip, hole, dict.fromkeys(clip, 0))


def random_erase(key: jax.Array, clip: Clip, probability: float) -> Clip:
    """With a probability, fills a random box with random levels, and with 0 in depth.

    It covers `ERASED_AREA` of the frame before it is cut to the frame's height and width, and is
    `ERASED_ASPECT` times as high as wide. All frames have the same box with other levels in it.

    Source: arXiv 1708.04896.
    Differs from the paper: the logarithm of the aspect is uniform, so that no box is favoured over
    one lying on its side; a box that is too high or too wide is cut, not drawn again.
    """
    draw_key, box_key, noise_key = jax.random.split(key, 3)

    def erase(clip: Clip) -> Clip:
        box = _draw_box(box_key, frame_size(clip))
        shape = next(iter(clip.values())).shape
        return _replace(clip, box, {'rgb': _noise(noise_key, (*shape[:3], 3)), 'depth': 0})

    drawn = jax.random.bernoulli(draw_key, probability)
    return jax.lax.cond(drawn, erase, lambda clip: clip, clip)


def _replace(clip: Clip, box: jax.Array, fill: dict[str, ArrayLike]) -> Clip:
    return {name: jnp.where(box, fill[name], x).astype(x.dtype) for name, x in clip.items()}


def _draw_box(key: jax.Array, frame: tuple[int, int]) -> jax.Array:
    """Which pixels `random_erase` replaces."""
    area_key, aspect_key, corner_key = jax.random.split(key, 3)
    height, width = frame
    area = height * width * jax.random.uniform(area_key, (), float, *ERASED_AREA)
    low, high = ERASED_ASPECT
    aspect = low * (high / low) ** jax.random.uniform(aspect_key)
    sides = jnp.sqrt(jnp.array([area * aspect, area / aspect]))
    sides = jnp.clip(jnp.round(sides).astype(jnp.int32), 1, jnp.array(frame))
    corner = jax.random.randint(corner_key, (2,), 0, jnp.array(frame) - sides + 1)
    return in_box(corner, sides, frame)


def _noise(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Uniform levels, uint8. Frames are cut from one pattern: to draw all takes 20 times longer."""
    num_frames, height, *rest = shape
    pattern_key, start_key = jax.random.split(key)
    pattern = jax.random.bits(pattern_key, (2 * height, *rest), jnp.uint8)
    starts = jax.random.randint(start_key, (num_frames,), 0, height + 1)
    return jax.vmap(lambda start: jax.lax.dynamic_slice_in_dim(pattern, start, height))(starts)
