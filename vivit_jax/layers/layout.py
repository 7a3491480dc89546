"""The layout of arrays in the memory of a device."""

import jax
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint

from vivit_jax.parallel.mesh import on_each_device


@jax.custom_vjp
def row_major(x: jax.Array) -> jax.Array:
    """Returns x, any float array [b ...], unchanged.

    When a training step is compiled for an NVIDIA GPU, x lies in memory in the order of its axes.
    Without this, XLA may choose another layout for the operations that use x, and then transposes
    everything that x was computed from: the gradient of a classifier wants transposed features,
    for which XLA transposes all tokens of an encoder at every norm.
    """
    return x


def _forward(x: jax.Array) -> tuple[jax.Array, None]:
    def pin(x: jax.Array) -> jax.Array:
        return with_layout_constraint(x, Layout(tuple(range(x.ndim))))

    def pin_on_gpus(x: jax.Array) -> jax.Array:
        return lax.platform_dependent(x, cuda=pin, default=lambda x: x)

    return on_each_device(pin_on_gpus, x), None


row_major.defvjp(_forward, lambda _, gradient: (gradient,))
