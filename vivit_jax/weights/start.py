"""The start of a training from weights of another one."""

import flax.traverse_util
import jax.numpy as jnp

from vivit_jax.errors import UserError
from vivit_jax.models.vivit import ViViT
from vivit_jax.weights.copying import copy_parameters, position_grids
from vivit_jax.weights.inflation import init_from_image_vit
from vivit_jax.weights.positions import fit_positions
from vivit_jax.weights.report import Report
from vivit_jax.weights.source import Weights

_HEAD = 'output_projection*'
REINIT = ('head',)  # what may be named as to be trained anew


def init_from(
    model: ViViT,
    params: dict,
    weights: Weights,
    *,
    name: str,
    clip_shape: tuple[int, int, int],
    reinit: tuple[str, ...] = (),
    tubelet_init: str = 'central_frame',
    temporal_attention_init: str = 'zero',
) -> tuple[dict, Report]:
    """Puts weights into a freshly initialized model.

    A ViT for images is inflated, see `init_from_image_vit`. Weights of the same model are copied;
    learned positions are resized to the tokens of the clip.

    Args:
        model: one of the four ViViTs.
        params: its parameters, for clips of `clip_shape`.
        weights: of a ViT for images or of the same model.
        name: of the model, as in `create_model`.
        clip_shape: (t, h, w) in frames and pixels.
        reinit: `('head',)` keeps the fresh classifier, whatever the weights have.
        tubelet_init, temporal_attention_init: see `init_from_image_vit`.

    Returns:
        New parameters, and what became of each.

    Raises:
        UserError: the weights do not fit, with everything that is the matter.
        ValueError: `clip_shape` does not fit `params`.
    """
    if unknown := set(reinit) - set(REINIT):
        raise UserError(f'init.reinit={tuple(reinit)}: {unknown} is none of {REINIT}')
    if weights.is_image_model:
        return init_from_image_vit(
            model,
            params,
            weights.params,
            clip_shape=clip_shape,
            tubelet_init=tubelet_init,
            temporal_attention_init=temporal_attention_init,
            image_grid=weights.grid[1:],
        )
    if weights.model['name'] != name:
        raise UserError(
            f'these weights ({weights.kind}) are of {weights.model["name"]}, the model is {name}: '
            'set model.name to that of the weights, or start from a ViT for images'
        )
    target = flax.traverse_util.flatten_dict(params, sep='/')
    source = flax.traverse_util.flatten_dict(weights.params, sep='/')
    changes = {}
    time, *space = weights.grid
    for table, places in position_grids(model, target, clip_shape).items():
        if table in source:
            old_places = {3: weights.grid, 2: tuple(space), 1: (time,)}[len(places)]
            num_class_tokens = int(any(x.startswith('cls') for x in source))
            source[table], changes[table] = fit_positions(
                jnp.asarray(source[table]), num_class_tokens, old_places, target[table], places
            )
    rules, expected = ((r'(.+)', r'\1'),), ()
    if 'head' in reinit:
        rules, expected = ((r'output_projection.+', ''), *rules), (_HEAD,)
    result, entries = copy_parameters(target, source, rules, changes)
    report = Report(tuple(entries))
    report.check(new=expected, unused=expected)
    return flax.traverse_util.unflatten_dict(result, sep='/'), report
