"""Classifiers."""

from collections.abc import Mapping

import flax.linen as nn
import jax

Classes = int | Mapping[str, int]


def classify(features: jax.Array, num_classes: Classes) -> jax.Array | dict[str, jax.Array]:
    """Linear classifiers on features [b d], to be called within a module's compact method.

    Their parameters lie in `output_projection`, or in `output_projection_<head>` where
    `num_classes` gives the classes of several heads, and start at zero.

    Returns:
        Logits [b classes], by head where there are several.
    """

    def project(name: str, classes: int) -> jax.Array:
        return nn.Dense(classes, kernel_init=nn.initializers.zeros, name=name)(features)

    if isinstance(num_classes, Mapping):
        return {
            head: project(f'output_projection_{head}', classes)
            for head, classes in num_classes.items()
        }
    return project('output_projection', num_classes)
