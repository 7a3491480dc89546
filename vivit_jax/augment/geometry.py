"""Changes of place that keep a clip's size. Clips are float [t h w c], one draw for all frames."""

import jax
import jax.numpy as jnp


def random_flip(key: jax.Array, clip: jax.Array, probability: float) -> jax.Array:
    """Mirrors a clip left to right with a probability."""
    return jnp.where(jax.random.bernoulli(key, probability), clip[:, :, ::-1], clip)
