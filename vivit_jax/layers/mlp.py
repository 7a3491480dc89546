"""The two-layer perceptron of a transformer block."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike


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

        def dense(features: int, x: jax.Array) -> jax.Array:
            return nn.Dense(
                features,
                kernel_init=nn.initializers.xavier_uniform(),
                bias_init=nn.initializers.normal(1e-6),
                dtype=self.dtype,
            )(x)

        x = nn.gelu(dense(self.mlp_dim, x), approximate=self.gelu == 'tanh')
        x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
        x = dense(width, x)
        return nn.Dropout(self.dropout_rate)(x, deterministic=not train)
