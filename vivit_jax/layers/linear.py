"""Linear projections of tokens."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from vivit_jax.parallel.mesh import TENSOR_AXIS, constrain


class Linear(nn.Module):
    """`x W + b` on the last `num_inputs` axes, to axes `features`, as a product with one matrix.

    Parameters and results equal `nn.DenseGeneral`: `kernel` [*inputs, *features] and `bias`
    [*features]. `nn.DenseGeneral` is slower on a GPU: XLA does not add a bias of several axes,
    such as heads and channels, within the matrix product, but in a second pass over all tokens.

    Attributes:
        features: sizes of the axes that replace the input axes.
        num_inputs: number of input axes, at the end of x.
        use_bias: whether there is a bias.
        kernel_init: initializer of the kernel, called for its form as a matrix.
        bias_init: initializer of the bias.
        dtype: type of the computation.
        num_groups: into how many groups the heads are divided; heads are the first axis of
            `features`, or of several input axes. The parameters hold one group after the other. In
            x or in the result the groups alternate from head to head, so that devices that split
            the heads get heads of every group.
    """

    features: tuple[int, ...]
    num_inputs: int = 1
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = nn.initializers.xavier_uniform()
    bias_init: nn.initializers.Initializer = nn.initializers.zeros
    dtype: DTypeLike = jnp.float32
    num_groups: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        tokens, inputs = x.shape[: -self.num_inputs], x.shape[-self.num_inputs :]
        matrix = (math.prod(inputs), math.prod(self.features))

        def init_kernel(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            return self.kernel_init(key, matrix).reshape(shape)

        kernel = self.param('kernel', init_kernel, (*inputs, *self.features))
        kernel = _interleave(kernel.astype(self.dtype), self.num_groups, int(self.num_inputs == 1))
        x = x.astype(self.dtype).reshape(*tokens, matrix[0])
        x = project(x, kernel.reshape(matrix))
        if self.use_bias:
            bias = self.param('bias', self.bias_init, self.features).astype(self.dtype)
            if self.num_inputs == 1:
                bias = _interleave(bias, self.num_groups, 0)
            x = x + bias.reshape(-1)
        return x.reshape(*tokens, *self.features)


def _interleave(x: jax.Array, num_groups: int, axis: int) -> jax.Array:
    """Reorders heads that are stored group after group, so that the groups alternate."""
    if num_groups == 1:
        return x
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    x = x.reshape(*before, num_groups, -1, *after).swapaxes(axis, axis + 1).reshape(x.shape)
    # Without this, XLA moves the heads of tokens between devices, in place of heads of the kernel.
    return constrain(x, *axis * (None,), TENSOR_AXIS)


@jax.custom_vjp
def project(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`x W` for tokens x [... c] and a kernel W [c d]; the gradient of W is computed as `xᵀ g`.

    JAX computes that gradient as `(gᵀ x)ᵀ`, which is slow on CPUs. Only if x is wider than g,
    JAX's form is used, since then it is faster than a transposed x. There is no forward-mode
    derivative.
    """
    return x @ kernel


def _project_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple]:
    return x @ kernel, (x, kernel)


def _project_backward(kept: tuple[jax.Array, jax.Array], grad: jax.Array) -> tuple:
    x, kernel = kept
    of_x = lax.dot_general(grad, kernel, (((grad.ndim - 1,), (1,)), ((), ())))
    over_tokens = ((tuple(range(x.ndim - 1)),) * 2, ((), ()))
    if x.shape[-1] > grad.shape[-1]:
        return of_x, lax.dot_general(grad, x, over_tokens).T
    return of_x, lax.dot_general(x, grad, over_tokens)


project.defvjp(_project_forward, _project_backward)
