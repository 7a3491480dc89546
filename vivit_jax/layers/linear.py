"""Linear projections of tokens."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike


class Linear(nn.Module):
    """`x W + b` on the last `num_inputs` axes, to axes `features`, as one product of matrices.

    Parameters and results are those of `nn.DenseGeneral`: `kernel` [*inputs, *features] and `bias`
    [*features]. All tokens are the rows of one matrix, also in the gradients: a product that sums
    over several axes of tokens makes compilers transpose them, and a bias of several axes, such
    as heads and channels, is not added within a GPU's matrix product.
    """

    features: tuple[int, ...]
    num_inputs: int = 1
    use_bias: bool = True
    bias_init: nn.initializers.Initializer = nn.initializers.zeros
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        rows, inputs = x.shape[: -self.num_inputs], x.shape[-self.num_inputs :]
        matrix = (math.prod(inputs), math.prod(self.features))

        def init_kernel(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            return nn.initializers.xavier_uniform()(key, matrix).reshape(shape)

        kernel = self.param('kernel', init_kernel, (*inputs, *self.features))
        x = x.astype(self.dtype).reshape(-1, matrix[0])
        x = x @ kernel.astype(self.dtype).reshape(matrix)
        if self.use_bias:
            bias = self.param('bias', self.bias_init, self.features)
            x = x + bias.astype(self.dtype).reshape(-1)
        return x.reshape(*rows, *self.features)
