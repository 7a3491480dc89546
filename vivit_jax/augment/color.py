"""Changes of colour. Clips are levels from 0 to 255, [t h w 3], one draw for all frames.

`adjust_*` take uint8 or float32 and return float32 that is not yet rounded, so that several can
follow one another and a compiler can make one pass of them. The others keep uint8.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from vivit_jax.augment.geometry import in_box

# Rec. 601 luma, as in PIL and in NTSC's YIQ.
_LUMA = np.float32([0.299, 0.587, 0.114])
_TO_YIQ = np.array([_LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
# A turn by an angle in RGB is luma + cos(angle) chroma + sin(angle) quarter_turn.
_LUMA_PART, _CHROMA_PART, _QUARTER_TURN = (
    np.float32(np.linalg.inv(_TO_YIQ) @ turn @ _TO_YIQ)
    for turn in (np.diag([1, 0, 0]), np.diag([0, 1, 1]), [[0, 0, 0], [0, 0, -1], [0, 1, 0]])
)


def adjust_brightness(clip: jax.Array, delta: ArrayLike) -> jax.Array:
    """Adds `delta` levels."""
    return jnp.clip(clip + jnp.float32(delta), 0, 255)


def scale_brightness(clip: jax.Array, factor: ArrayLike) -> jax.Array:
    """Scales the distance from black."""
    return jnp.clip(jnp.float32(factor) * clip, 0, 255)


def adjust_contrast(clip: jax.Array, factor: ArrayLike) -> jax.Array:
    """Scales the distance from the clip's mean luma."""
    return _blend(clip, luma(clip).mean(), factor)


def adjust_saturation(clip: jax.Array, factor: ArrayLike) -> jax.Array:
    """Scales the distance from the pixel's own luma; 0 leaves grey."""
    return _blend(clip, luma(clip), factor)


def adjust_sharpness(clip: jax.Array, factor: ArrayLike) -> jax.Array:
    """Scales the distance from the smoothed frame, by PIL's kernel and not at the border."""
    height, width = clip.shape[1:3]
    clip = clip.astype(jnp.float32)
    padded = jnp.pad(clip, ((0, 0), (1, 1), (1, 1), (0, 0)))
    square = sum(padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3))
    is_inner = in_box((1, 1), (height - 2, width - 2), (height, width))
    return _blend(clip, jnp.where(is_inner, (square + 4 * clip) / 13, clip), factor)


def adjust_hue(clip: jax.Array, turn: ArrayLike) -> jax.Array:
    """Turns the colour by a part of the circle, around the grey axis of YIQ: luma stays."""
    angle = 2 * jnp.pi * jnp.float32(turn)
    matrix = _LUMA_PART + jnp.cos(angle) * _CHROMA_PART + jnp.sin(angle) * _QUARTER_TURN
    return jnp.clip(jnp.stack([_weigh(clip, row) for row in matrix], axis=-1), 0, 255)


def luma(clip: jax.Array) -> jax.Array:
    """Brightness of every pixel, float32 [t h w 1]."""
    return _weigh(clip, _LUMA)[..., None]


def to_levels(clip: jax.Array) -> jax.Array:
    """Rounds to uint8."""
    return jnp.round(clip).astype(jnp.uint8)


def random_color_jitter(
    key: jax.Array,
    clip: jax.Array,
    *,
    probability: float,
    brightness: float = 32.0,
    contrast: float = 0.4,
    saturation: float = 0.4,
    hue: float = 0.2,
) -> jax.Array:
    """With a probability, changes brightness, saturation, contrast and hue, in this order.

    Brightness (in levels) and hue are shifted by up to their value, contrast and saturation scaled
    by up to 1 ± theirs, all uniformly. The ranges are the original ViViT's.
    """
    draw_key, *keys = jax.random.split(key, 5)

    def draw(key: jax.Array, most: float) -> jax.Array:
        return jax.random.uniform(key, minval=-most, maxval=most)

    def change(clip: jax.Array) -> jax.Array:
        clip = adjust_brightness(clip, draw(keys[0], brightness))
        clip = adjust_saturation(clip, 1 + draw(keys[1], saturation))
        clip = adjust_contrast(clip, 1 + draw(keys[2], contrast))
        return to_levels(adjust_hue(clip, draw(keys[3], hue)))

    return _with_probability(draw_key, probability, change, clip)


def random_color_drop(key: jax.Array, clip: jax.Array, probability: float) -> jax.Array:
    """Leaves only the luma, in all three channels, with a probability."""

    def change(clip: jax.Array) -> jax.Array:
        return jnp.broadcast_to(to_levels(luma(clip)), clip.shape)

    return _with_probability(key, probability, change, clip)


def _with_probability(key, probability, change, clip):
    return jax.lax.cond(jax.random.bernoulli(key, probability), change, lambda clip: clip, clip)


def _blend(clip: jax.Array, degenerate: jax.Array, factor: ArrayLike) -> jax.Array:
    """Scales the distance from `degenerate`; this form is exact for a factor of 1."""
    return jnp.clip(clip + (jnp.float32(factor) - 1) * (clip - degenerate), 0, 255)


def _weigh(clip: jax.Array, weights: jax.Array) -> jax.Array:
    """The weighted sum of the channels, [t h w]."""
    # Written out it is part of one pass over a clip; as a matrix product it is a pass of its own.
    return sum(weights[channel] * clip[..., channel] for channel in range(3))
