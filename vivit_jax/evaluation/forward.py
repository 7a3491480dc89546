"""The forward pass of a trained model, for evaluation and prediction."""

from collections.abc import Callable

import flax.linen as nn
import jax
from jax.sharding import Mesh
from jax.stages import Wrapped

from vivit_jax.heads import PerHead
from vivit_jax.layers.tokens import ModelOutput
from vivit_jax.parallel.mesh import replicated
from vivit_jax.video.preprocessing import Preprocessing, normalize, to_unit_range

__all__ = ['create_forward']


def create_forward(
    model: nn.Module, spec: Preprocessing
) -> Callable[[dict, jax.Array], ModelOutput]:
    """Makes the function (variables, rgb) -> output, for uint8 clips [... t h w 3].

    Logits and features keep the leading axes, such as videos and their views.
    """

    def forward(variables: dict, rgb: jax.Array) -> ModelOutput:
        leading = rgb.shape[:-4]
        clip = normalize(to_unit_range(rgb.reshape(-1, *rgb.shape[-4:])), spec)
        output = model.apply(variables, clip)
        return jax.tree.map(lambda x: x.reshape(*leading, -1), output)

    return forward


def jit_logits(forward: Callable[[dict, jax.Array], ModelOutput], mesh: Mesh) -> Wrapped:
    """(variables, rgb) -> logits, compiled for a mesh, which all devices get whole."""

    def logits(variables: dict, rgb: jax.Array) -> PerHead[jax.Array]:
        return forward(variables, rgb).logits

    return jax.jit(logits, out_shardings=replicated(mesh))
