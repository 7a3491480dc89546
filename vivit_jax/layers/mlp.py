"""The two-layer perceptron of a transformer block."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vivit_jax.layers.linear import Linear


class MlpBlock(nn.Module):
    """`GELU(x W1 + b1) W2 + b2` on the last axis.

    `gelu='tanh'` is the approximation of JAX's ViTs, `'exact'` the error function of PyTorch's.
    """

    mlp_dim: int
    dropout_rate: float = 0.0
    gelu: str = 'tanh'
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        width = x.shape[-1]

        def dense(features: int, name: str, x: jax.Array) -> jax.Array:
            bias_init = nn.initializers.normal(1e-6)
            return Linear((features,), bias_init=bias_init, dtype=self.dtype, name=name)(x)

        x = nn.gelu(dense(self.mlp_dim, 'Dense_0', x), approximate=self.gelu == 'tanh')
        x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
        x = dense(width, 'Dense_1', x)
        return nn.Dropout(self.dropout_rate)(x, deterministic=not train)
