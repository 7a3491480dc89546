"""Puts weights from a file into a model, before training or conversion."""

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp

from vivit_jax.errors import UserError
from vivit_jax.layers.specification import TransformerSpecification
from vivit_jax.model_card import ModelCard
from vivit_jax.models.registry import find_keywords, specify
from vivit_jax.parameter_names import name_in_stream
from vivit_jax.weights.copy_rules import NEW_HEAD, SAME, UNUSED, extended_model_rules
from vivit_jax.weights.copying import copy_parameters
from vivit_jax.weights.inflation import init_from_image_vit
from vivit_jax.weights.report import Report
from vivit_jax.weights.tubelets import TEMPORAL_KERNEL_INITS
from vivit_jax.weights.weights import Weights

__all__ = ['init_from']

_REINIT = ('head',)

# Keywords that change the function of a model, but not its parameters.
_SILENT = (
    'pixel_mean',
    'gelu',
    'layer_norm_eps',
    'attention_order',
    'position',
    'cnn_stride',
    'stem_stride',
    'stem_t_stride',
    'stem_pool',
    'rpe_function',
    'rpe_ratio',
    'subsample',
    'subsample_layers',
)


def init_from(
    model: nn.Module,
    params: dict,
    weights: Weights,
    *,
    clip_shape: tuple[int, int, int],
    reinit: tuple[str, ...] = (),
    tubelet_init: str = 'central_frame',
    temporal_attention_init: str = 'zero',
) -> tuple[dict, Report]:
    """Puts weights into a model.

    If the weights belong to a ViT for images, `init_from_image_vit` inflates them. If they belong
    to the same model, they are copied: learned positions are resized to the tokens of the clip,
    and the tokenizer's kernel to the length of the tubelet. If they belong to a model that this
    model extends, they are copied in the same way, but temporal encoders and the parameters that
    only the model has keep their fresh values. A ResNet for images is such a model, whose kernels
    are inflated in time.

    Args:
        model: a model for RGB or for depth; `start_variables` takes
            models for both.
        params: the model's freshly initialized parameters, for clips of `clip_shape`. Their shapes
            are enough if none of them is to be kept.
        weights: weights of a model for images, of the same model, or of a model that it extends.
        clip_shape: (t, h, w) in frames and pixels.
        reinit: `('head',)` keeps the fresh classifier, whatever the weights have.
        tubelet_init, temporal_attention_init: see `init_from_image_vit`.

    Returns:
        New parameters, and a report of what became of each.

    Raises:
        UserError: the weights do not fit; the message lists every problem.
        ValueError: `clip_shape` does not fit `params`.
    """
    if unknown := set(reinit) - set(_REINIT):
        raise UserError(f'init.reinit={tuple(reinit)}: {unknown} is none of {_REINIT}')
    modality = weights.card.model.get('modality', 'rgb')
    if modality not in ('rgb', model.spec.modality):
        raise UserError(
            f'these weights ({weights.kind}) are of a model for {modality}, and a model for '
            f'{model.spec.modality} cannot start from them: take weights of RGB, or an image ViT'
        )
    source_spec = specify(**weights.card.model)
    is_transformer, has_vit = (
        isinstance(spec, TransformerSpecification) for spec in (model.spec, source_spec)
    )
    if weights.is_image_model and has_vit and is_transformer:
        return init_from_image_vit(
            model,
            params,
            weights.params,
            clip_shape=clip_shape,
            tubelet_init=tubelet_init,
            temporal_attention_init=temporal_attention_init,
            image_grid=weights.grid[1:],
            reinit=reinit,
            position_resize=weights.position_resize,
        )
    source_name = weights.card.model['name']
    name = find_keywords(model.spec)['name']
    image_model = f'a {"ViT" if is_transformer else "ResNet"} for images'
    if source_name not in (name, *model.spec.EXTENDS):
        raise UserError(
            f'these weights ({weights.kind}) belong to {source_name}, and the model is {name}: set '
            f'model.name={source_name!r}, or start from '
            f'{" or ".join((*model.spec.EXTENDS, image_model))}'
        )
    if weights.is_image_model and tubelet_init not in TEMPORAL_KERNEL_INITS:
        raise UserError(
            f'init.tubelet={tubelet_init!r} is for ViTs: temporal kernels start from a ResNet for '
            f'images by one of {TEMPORAL_KERNEL_INITS}'
        )
    target = flax.traverse_util.flatten_dict(params, sep='/')
    source = flax.traverse_util.flatten_dict(weights.params, sep='/')
    rules, unused = SAME, ()
    if source_name != name or not getattr(source_spec, 'blocks', True):
        rules, unused = extended_model_rules(model.spec, source), UNUSED
    if 'head' in reinit:
        rules, unused = (*NEW_HEAD, *rules), (*unused, 'output_projection*')
    return copy_parameters(
        model,
        target,
        source,
        rules,
        clip_shape=clip_shape,
        grid=weights.grid,
        tubelet_init=tubelet_init,
        unused=unused,
    )


def describe_differences(card: ModelCard, weights: Weights) -> list[str]:
    """A line for each way in which a model and its input differ from the model of the weights.

    Only differences that no parameter shows are listed. With them a model can be trained, but it
    starts from worse features than it could.
    """
    source, lines = weights.card, []
    specs = specify(**source.model), specify(**card.model)
    for key in _SILENT:
        default = getattr(type(specs[0]), key, None)  # a model without the keyword behaves so
        pair = [getattr(spec, key, default) for spec in specs]
        # A learned position is a parameter.
        if not {None, 'learned'} & set(pair) and pair[0] != pair[1]:
            lines.append(f'the weights were trained with model.{key}={pair[0]!r}, not {pair[1]!r}')
    for key in ('value_range', 'color_order'):
        pair = getattr(source.preprocessing, key), getattr(card.preprocessing, key)
        if pair[0] != pair[1]:
            lines.append(
                f'the weights were trained with preprocessing.{key}={pair[0]!r}, not {pair[1]!r}'
            )
    return lines


def find_untrained_heads(params: dict) -> list[str]:
    """The names of classifiers whose kernel is still all zero: every clip gets equal logits."""
    flat = flax.traverse_util.flatten_dict(params, sep='/')
    return [
        name.removesuffix('/kernel')
        for name, value in flat.items()
        if name_in_stream(name).startswith('output_projection') and name.endswith('/kernel')
        if not jax.device_get(jnp.any(value))
    ]
