"""Changes of a clip's 256 levels, uint8 [t h w 3] to the same, all frames alike."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def auto_contrast(clip: jax.Array) -> jax.Array:
    """Stretches every channel to the full range; leaves a channel of one value."""

    def stretch(channel: jax.Array) -> jax.Array:
        low, high = channel.min(), channel.max()
        scale = 255 / jnp.maximum(high - low, 1).astype(jnp.float32)
        stretched = jnp.round(scale * (channel - low)).astype(jnp.uint8)
        return jnp.where(high > low, stretched, channel)

    return _by_channel(stretch, clip)


def equalize(clip: jax.Array) -> jax.Array:
    """Spreads every channel's levels so that all are about equally frequent, as PIL does."""

    def spread(channel: jax.Array) -> jax.Array:
        count = histogram(channel)
        num_below = jnp.cumsum(count) - count
        # A 255th of all pixels, without the pixels of the highest level.
        step = num_below.max(where=count > 0, initial=0) // 255
        table = jnp.minimum((num_below + step // 2) // jnp.maximum(step, 1), 255)
        return jnp.where(step > 0, table.astype(jnp.uint8)[channel], channel)

    return _by_channel(spread, clip)


def histogram(channel: jax.Array, num_copies: int = 32) -> jax.Array:
    """How often each level occurs, int32 [256].

    Neighbours are counted in different copies of the histogram: on a GPU, additions to the same
    number wait for one another, and many pixels of a clip are equal.
    """
    copy = jnp.arange(channel.size) % num_copies
    counts = jnp.zeros((num_copies, 256), jnp.int32)
    return counts.at[copy, channel.ravel()].add(1, mode='promise_in_bounds').sum(0)


def invert(clip: jax.Array) -> jax.Array:
    """The negative."""
    return 255 - clip


def posterize(clip: jax.Array, num_bits: int) -> jax.Array:
    """Keeps the upper bits of a level; all 8 or more leave it."""
    return clip & jnp.uint8(256 - 2 ** max(8 - num_bits, 0))


def solarize(clip: jax.Array, threshold: int) -> jax.Array:
    """Inverts levels from `threshold` (0 to 256 and beyond) up."""
    return jnp.where(clip.astype(jnp.int32) < threshold, clip, 255 - clip)


def solarize_add(clip: jax.Array, addition: int) -> jax.Array:
    """Brightens the darker half of the levels by `addition`, 255 at most."""
    brighter = jnp.minimum(clip.astype(jnp.int32) + addition, 255).astype(jnp.uint8)
    return jnp.where(clip < 128, brighter, clip)


def _by_channel(change: Callable[[jax.Array], jax.Array], clip: jax.Array) -> jax.Array:
    return jnp.stack([change(clip[..., channel]) for channel in range(3)], axis=-1)
