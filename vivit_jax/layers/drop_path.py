"""Stochastic depth."""

import flax.linen as nn
import jax


class DropPath(nn.Module):
    """Zeroes a residual branch [b ...] for whole examples and scales the others by 1/(1 - rate).

    Source: Deep Networks with Stochastic Depth (arXiv 1603.09382), with the rescaling of dropout.
    Differs from the original ViViT, which leaves the surviving branches unscaled.
    """

    rate: float

    @nn.compact
    def __call__(self, branch: jax.Array, *, train: bool = False) -> jax.Array:
        return nn.Dropout(self.rate, broadcast_dims=tuple(range(1, branch.ndim)))(
            branch, deterministic=not train
        )
