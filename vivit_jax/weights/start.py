"""The start of a training from weights of another one."""

import flax.traverse_util
import jax
import jax.numpy as jnp

from vivit_jax.errors import UserError
from vivit_jax.model_card import ModelCard
from vivit_jax.models.registry import MODELS, create_model
from vivit_jax.models.vivit import ViViT
from vivit_jax.weights.copying import copy_parameters, position_grids
from vivit_jax.weights.inflation import HEAD, init_from_image_vit, resize_kernel
from vivit_jax.weights.positions import fit_positions
from vivit_jax.weights.report import Report
from vivit_jax.weights.source import Weights

_KERNEL = 'embedding/kernel'
_REINIT = ('head',)

# Keywords that change what a model computes, but none of its parameters.
_SILENT = ('gelu', 'layer_norm_eps', 'attention_order')


def init_from(
    model: ViViT,
    params: dict,
    weights: Weights,
    *,
    clip_shape: tuple[int, int, int],
    reinit: tuple[str, ...] = (),
    tubelet_init: str = 'central_frame',
    temporal_attention_init: str = 'zero',
) -> tuple[dict, Report]:
    """Puts weights into a model.

    A ViT for images is inflated, see `init_from_image_vit`. Weights of the same model are copied;
    learned positions are resized to the tokens of the clip, and the kernel to the tubelet's length.

    Args:
        model: one of the four ViViTs.
        params: its freshly initialized parameters, for clips of `clip_shape`, or only their shapes
            where none of them is to be kept.
        weights: of a ViT for images or of the same model.
        clip_shape: (t, h, w) in frames and pixels.
        reinit: `('head',)` keeps the fresh classifier, whatever the weights have.
        tubelet_init, temporal_attention_init: see `init_from_image_vit`.

    Returns:
        New parameters, and what became of each.

    Raises:
        UserError: the weights do not fit, with everything that is the matter.
        ValueError: `clip_shape` does not fit `params`.
    """
    if unknown := set(reinit) - set(_REINIT):
        raise UserError(f'init.reinit={tuple(reinit)}: {unknown} is none of {_REINIT}')
    if weights.is_image_model:
        return init_from_image_vit(
            model,
            params,
            weights.params,
            clip_shape=clip_shape,
            tubelet_init=tubelet_init,
            temporal_attention_init=temporal_attention_init,
            image_grid=weights.grid[1:],
            reinit=reinit,
        )
    name = weights.card.model['name']
    if MODELS[name] is not type(model):
        raise UserError(
            f'these weights ({weights.kind}) are of {name}, and the model is another: set '
            f'model.name={name!r}, or start from a ViT for images'
        )
    target = flax.traverse_util.flatten_dict(params, sep='/')
    source = flax.traverse_util.flatten_dict(weights.params, sep='/')
    changes = {}
    num_class_tokens = int(any(name.startswith('cls') for name in source))
    for table, places in position_grids(model, target, clip_shape).items():
        if table in source:
            time, *space = weights.grid
            old_places = {3: weights.grid, 2: tuple(space), 1: (time,)}[len(places)]
            source[table], changes[table] = fit_positions(
                source[table], num_class_tokens, old_places, target[table], places
            )
    if target[_KERNEL].ndim == 5 and source[_KERNEL].ndim == 5:
        source[_KERNEL], changes[_KERNEL] = resize_kernel(source[_KERNEL], model.tubelet_size[0])
    rules, expected = ((r'(.+)', r'\1'),), ()
    if 'head' in reinit:
        rules, expected = ((r'output_projection.+', ''), *rules), (HEAD,)
    result, entries = copy_parameters(target, source, rules, changes)
    report = Report(tuple(entries))
    report.check(new=expected, unused=expected)
    return flax.traverse_util.unflatten_dict(result, sep='/'), report


def describe_differences(card: ModelCard, weights: Weights) -> list[str]:
    """In what a model and its input differ from those that weights were trained with.

    Only what no parameter tells: such a model trains, but starts worse than it could.
    """
    source, lines = weights.card, []
    models = create_model(**source.model), create_model(**card.model)
    for key in _SILENT:
        pair = [getattr(model, key, None) for model in models]
        if None not in pair and pair[0] != pair[1]:
            lines.append(f'the weights were trained with model.{key}={pair[0]!r}, not {pair[1]!r}')
    for key in ('value_range', 'color_order'):
        pair = getattr(source.preprocessing, key), getattr(card.preprocessing, key)
        if pair[0] != pair[1]:
            lines.append(
                f'the weights were trained with preprocessing.{key}={pair[0]!r}, not {pair[1]!r}'
            )
    return lines


def find_untrained_heads(params: dict) -> list[str]:
    """The classifiers that are all zero, as they are made: every clip gets the same logits."""
    flat = flax.traverse_util.flatten_dict(params, sep='/')
    return [
        name.removesuffix('/kernel')
        for name, value in flat.items()
        if name.startswith('output_projection') and name.endswith('/kernel')
        if not jax.device_get(jnp.any(value))
    ]
