"""Changes of colour. Clips are float [t h w 3] in [0, 1], one draw for all frames."""

import jax
import jax.numpy as jnp

# Rec. 601 luma, as in PIL and in NTSC's YIQ.
_LUMA = (0.299, 0.587, 0.114)
_RGB_TO_YIQ = ((*_LUMA,), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def adjust_brightness(clip: jax.Array, delta: jax.Array | float) -> jax.Array:
    """Adds `delta`."""
    return jnp.clip(clip + delta, 0, 1)


def adjust_contrast(clip: jax.Array, factor: jax.Array | float) -> jax.Array:
    """Scales the distance from the clip's mean luma."""
    return _blend(clip, luma(clip).mean(), factor)


def adjust_saturation(clip: jax.Array, factor: jax.Array | float) -> jax.Array:
    """Scales the distance from the pixel's own luma; 0 leaves grey."""
    return _blend(clip, luma(clip), factor)


def adjust_sharpness(clip: jax.Array, factor: jax.Array | float) -> jax.Array:
    """Scales the distance from the smoothed frame, by PIL's kernel and not at the border."""
    rows = clip[:, :-2] + clip[:, 1:-1] + clip[:, 2:]
    square = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    smooth = (square + 4 * clip[:, 1:-1, 1:-1]) / 13
    return _blend(clip, jnp.asarray(clip).at[:, 1:-1, 1:-1].set(smooth), factor)


def adjust_hue(clip: jax.Array, turn: jax.Array | float) -> jax.Array:
    """Turns the colour by a part of the circle, around the grey axis of YIQ: luma stays."""
    to_yiq = jnp.asarray(_RGB_TO_YIQ)
    cos, sin = jnp.cos(2 * jnp.pi * turn), jnp.sin(2 * jnp.pi * turn)
    one, zero = jnp.ones_like(cos), jnp.zeros_like(cos)
    rotation = jnp.array([[one, zero, zero], [zero, cos, -sin], [zero, sin, cos]])
    with jax.default_matmul_precision('highest'):
        matrix = jnp.linalg.inv(to_yiq) @ rotation @ to_yiq
    return jnp.clip(jnp.matmul(clip, matrix.T, precision='highest'), 0, 1)


def _blend(clip: jax.Array, degenerate: jax.Array, factor: jax.Array | float) -> jax.Array:
    """Scales the distance from `degenerate`; this form is exact for a factor of 1."""
    return jnp.clip(clip + (factor - 1) * (clip - degenerate), 0, 1)


def luma(clip: jax.Array) -> jax.Array:
    """Brightness of every pixel, [t h w 1]."""
    # As a product 3 ms per clip of 32x224x224 on two CPU cores; as a sum over channels 30.
    return jnp.matmul(clip, jnp.asarray(_LUMA)[:, None], precision='highest')


def random_color_jitter(
    key: jax.Array,
    clip: jax.Array,
    *,
    probability: float,
    brightness: float = 32 / 255,
    contrast: float = 0.4,
    saturation: float = 0.4,
    hue: float = 0.2,
) -> jax.Array:
    """With a probability, changes brightness, saturation, contrast and hue, in this order.

    Brightness and hue are shifted by up to their value, contrast and saturation scaled by up to
    1 ± theirs, all uniformly. The ranges are those of the original ViViT's training.
    """
    keys = jax.random.split(key, 5)

    def draw(key: jax.Array, most: float) -> jax.Array:
        return jax.random.uniform(key, minval=-most, maxval=most)

    changed = adjust_brightness(clip, draw(keys[0], brightness))
    changed = adjust_saturation(changed, 1 + draw(keys[1], saturation))
    changed = adjust_contrast(changed, 1 + draw(keys[2], contrast))
    changed = adjust_hue(changed, draw(keys[3], hue))
    return jnp.where(jax.random.bernoulli(keys[4], probability), changed, clip)


def random_color_drop(key: jax.Array, clip: jax.Array, probability: float) -> jax.Array:
    """Leaves only the luma, in all three channels, with a probability."""
    return jnp.where(jax.random.bernoulli(key, probability), luma(clip), clip)
