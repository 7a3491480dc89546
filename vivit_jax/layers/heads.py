"""Classifiers."""

from collections.abc import Mapping

import flax.linen as nn
import jax
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint

from vivit_jax.parallel.mesh import on_each_device

Classes = int | Mapping[str, int]


def classify(features: jax.Array, num_classes: Classes) -> jax.Array | dict[str, jax.Array]:
    """Linear classifiers on features [b d], to be called within a module's compact method.

    Their parameters lie in `output_projection`, or in `output_projection_<head>` where
    `num_classes` gives the classes of several heads, and start at zero.

    Returns:
        Logits [b classes], by head where there are several.
    """
    features = _row_major(features)

    def project(name: str, classes: int) -> jax.Array:
        return nn.Dense(classes, kernel_init=nn.initializers.zeros, name=name)(features)

    if isinstance(num_classes, Mapping):
        return {
            head: project(f'output_projection_{head}', classes)
            for head, classes in num_classes.items()
        }
    return project('output_projection', num_classes)


@jax.custom_vjp
def _row_major(features: jax.Array) -> jax.Array:
    """The features; in training, and on NVIDIA GPUs, in memory in the order of their axes.

    The gradient of a classifier's kernel is a product with the transposed features. XLA would
    rather have them transposed from the start there, and transposes all tokens of all layers.
    """
    return features


def _row_major_forward(features: jax.Array) -> tuple[jax.Array, None]:
    def pin(features: jax.Array) -> jax.Array:
        return with_layout_constraint(features, Layout(tuple(range(features.ndim))))

    def pin_on_gpus(features: jax.Array) -> jax.Array:
        return lax.platform_dependent(features, cuda=pin, default=lambda features: features)

    return on_each_device(pin_on_gpus, features), None


_row_major.defvjp(_row_major_forward, lambda _, gradient: (gradient,))
