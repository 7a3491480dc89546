"""Linear projections of tokens."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike


class Linear(nn.Module):
    """`x W + b` on the last `num_inputs` axes, to axes `features`, as one product of matrices.

    Parameters and results are those of `nn.DenseGeneral`: `kernel` [*inputs, *features] and `bias`
    [*features]. All tokens are the rows of one matrix, also in the gradients: a product that sums
    over several axes of tokens makes compilers transpose them, and a bias of several axes, such
    as heads and channels, is not added within a GPU's matrix product.

    Attributes:
        features: axes of the result behind those of the tokens.
        num_inputs: how many axes the result is summed over.
        use_bias: whether there is a bias.
        kernel_init: of the kernel as a matrix.
        bias_init: of the bias.
        dtype: of the computation.
    """

    features: tuple[int, ...]
    num_inputs: int = 1
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = nn.initializers.xavier_uniform()
    bias_init: nn.initializers.Initializer = nn.initializers.zeros
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        rows, inputs = x.shape[: -self.num_inputs], x.shape[-self.num_inputs :]
        matrix = (math.prod(inputs), math.prod(self.features))

        def init_kernel(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            return self.kernel_init(key, matrix).reshape(shape)

        kernel = self.param('kernel', init_kernel, (*inputs, *self.features))
        x = x.astype(self.dtype).reshape(-1, matrix[0])
        x = matrix_product(x, kernel.astype(self.dtype).reshape(matrix))
        if self.use_bias:
            bias = self.param('bias', self.bias_init, self.features)
            x = x + bias.astype(self.dtype).reshape(-1)
        return x.reshape(*rows, *self.features)


@jax.custom_vjp
def matrix_product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`x W` of rows [n c] and a kernel [c d], whose gradient is `xᵀ g`.

    JAX's own gradient is `(gᵀ x)ᵀ`. XLA has no fast form of it on CPUs, unless x is the wider one:
    the wider one is better left as it is.
    """
    return x @ kernel


def _product_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple]:
    return x @ kernel, (x, kernel)


def _product_backward(kept: tuple[jax.Array, jax.Array], grad: jax.Array) -> tuple:
    x, kernel = kept
    over_rows, over_features = (((0,), (0,)), ((), ())), (((1,), (1,)), ((), ()))
    of_x = lax.dot_general(grad, kernel, over_features)
    if x.shape[1] > grad.shape[1]:
        return of_x, lax.dot_general(grad, x, over_rows).T
    return of_x, lax.dot_general(x, grad, over_rows)


matrix_product.defvjp(_product_forward, _product_backward)
