"""Stochastic depth."""

import flax.linen as nn
import jax
import jax.numpy as jnp


class DropPath(nn.Module):
    """Zeroes a residual branch [b ...] for whole examples and scales the others by 1/(1 - rate).

    Source: Deep Networks with Stochastic Depth (arXiv 1603.09382), with the rescaling of dropout.
    Differs from the original ViViT, which leaves the surviving branches unscaled.
    """

    @nn.compact
    def __call__(
        self, branch: jax.Array, rate: float | jax.Array | None, *, train: bool = False
    ) -> jax.Array:
        """`rate` may be traced, as in a scan over layers; None switches it off."""
        if rate is None or not train:
            return branch
        shape = (len(branch), *(1,) * (branch.ndim - 1))
        kept = jax.random.bernoulli(self.make_rng('dropout'), 1 - rate, shape)
        return jnp.where(kept, branch / jnp.asarray(1 - rate, branch.dtype), 0)
