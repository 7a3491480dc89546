"""The forward pass of a trained model, for evaluation and prediction."""

from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
from jax.sharding import Mesh
from jax.stages import Wrapped

from vivit_jax.augment.inputs import normalize_clips, to_model_input
from vivit_jax.heads import PerHead
from vivit_jax.layers.specification import Specification
from vivit_jax.layers.tokens import ModelOutput
from vivit_jax.models.fusion.clips import check_clips
from vivit_jax.parallel.mesh import replicated
from vivit_jax.video.preprocessing import Preprocessing, to_unit_range

__all__ = ['create_forward']


def create_forward(model: nn.Module, spec: Preprocessing) -> Callable[..., ModelOutput]:
    """Makes the function (variables, pixels) -> output, for clips as they are read from videos.

    Pixels are `rgb` uint8 [... t h w 3], `depth` uint16 [... t h w 1] or a dict of both, as the
    modality of the model asks for. In clips of units, t is the frames of all units. Logits and
    features keep the leading axes, such as videos and their views.

    The function raises a ValueError if a model of RGB and depth does not get a dict of both.
    """

    def forward(variables: dict, pixels: jax.Array | Mapping[str, jax.Array]) -> ModelOutput:
        leading, clip = prepare_clips(model.spec, spec, pixels)
        output = model.apply(variables, clip)
        return jax.tree.map(lambda x: x.reshape(*leading, -1), output)

    return forward


def prepare_clips(
    model: Specification, spec: Preprocessing, pixels: jax.Array | Mapping[str, jax.Array]
) -> tuple[tuple[int, ...], jax.Array | dict[str, jax.Array]]:
    """Makes what a model takes of pixels, see `create_forward`.

    Returns:
        The leading axes of the pixels; and the input of the model, whose first axis has all of
        them.
    """
    if model.modality == 'rgbd':
        check_clips(pixels)
    elif not isinstance(pixels, Mapping):
        pixels = {model.modality: pixels}
    leading = next(iter(pixels.values())).shape[:-4]
    clips = {kind: x.reshape(-1, *x.shape[-4:]) for kind, x in pixels.items()}
    if 'rgb' in clips:
        clips['rgb'] = to_unit_range(clips['rgb'])
    return leading, to_model_input(normalize_clips(clips, spec), spec, model)


def jit_logits(forward: Callable[..., ModelOutput], mesh: Mesh) -> Wrapped:
    """(variables, pixels) -> logits, compiled for a mesh, which all devices get whole."""

    def logits(variables: dict, pixels: dict[str, jax.Array]) -> PerHead[jax.Array]:
        return forward(variables, pixels).logits

    return jax.jit(logits, out_shardings=replicated(mesh))
