"""Saves a model that was trained by other code than this package's commands."""

from collections.abc import Mapping
from pathlib import Path

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp

from vivit_jax.errors import UserError
from vivit_jax.heads import LabelNames, map_heads
from vivit_jax.layers.specification import Specification
from vivit_jax.model_card import ModelCard
from vivit_jax.models.registry import find_keywords
from vivit_jax.parameter_names import name_in_stream
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.weights.misfits import find_misfits
from vivit_jax.weights.orbax import write_checkpoint

__all__ = ['save_checkpoint']


def save_checkpoint(
    path: str | Path,
    model: nn.Module,
    variables: Mapping,
    preprocessing: Preprocessing,
    label_names: LabelNames,
    *,
    is_multi_label: bool = False,
):
    """Saves a model for `load_checkpoint`, and for `--checkpoint`, `--source` and `init_from`.

    >>> vivit_jax.save_checkpoint('runs/mine', model, variables, preprocessing, ('run', 'jump'))

    Args:
        path: a folder that does not exist yet.
        model: a model that `create_model` or `load_checkpoint` returned.
        variables: `{'params': …}`, and `'batch_stats'` if the model has batch norms; float arrays
            of JAX or NumPy. Other collections are not saved.
        preprocessing: how videos became the clips that the model was trained on.
        label_names: names of the classes in the order of the logits, or a dict head -> names if the
            model has several heads.
        is_multi_label: whether videos have any number of labels, so that each logit is one of a
            sigmoid; otherwise the logits are those of one softmax.

    Raises:
        UserError: the path exists or cannot be written, or the arguments do not fit each other: a
            parameter is missing, unknown, misshapen, no float or not finite, or there are more or
            fewer names than classes. The message lists every problem.
    """
    if Path(path).exists():
        raise UserError(f'{path} exists already: name another folder, or remove it')
    spec = getattr(model, 'spec', None)
    if not isinstance(spec, Specification):
        raise UserError(
            f'{type(model).__name__} is no model of vivit_jax.create_model: it could not be loaded'
        )
    if 'params' not in variables:
        raise UserError(
            f"variables has the keys {list(variables)}, and must be {{'params': …}}, as "
            'model.init returns it'
        )
    if is_multi_label and isinstance(label_names, Mapping):
        raise UserError('is_multi_label=True is for one head, and label_names has several')
    card = ModelCard(
        find_keywords(spec),
        preprocessing,
        map_heads(tuple, label_names),
        is_multi_label=is_multi_label,
    )
    params, batch_stats = variables['params'], variables.get('batch_stats', {})
    arrays = {
        name: value
        for tree in (params, batch_stats)
        for name, value in flax.traverse_util.flatten_dict(tree, sep='/').items()
    }
    if problems := _find_problems(card, arrays):
        raise UserError('\n  '.join([f'{path} was not written:', *problems]))
    write_checkpoint(card, params, Path(path), batch_stats)


def _find_problems(card: ModelCard, arrays: Mapping[str, jax.Array]) -> list[str]:
    """A line for each way in which variables, by path, and names of classes do not fit a card."""
    counts, num_classes = map_heads(len, card.label_names), card.model['num_classes']
    problems = []
    if counts != num_classes:
        problems.append(f'label_names has {counts} names, and the model has {num_classes} classes')
    if not any(name_in_stream(name).startswith('output_projection') for name in arrays):
        problems.append('output_projection: missing, the classifier of the model')
    try:
        problems += find_misfits(card, arrays)
    except ValueError as error:
        problems.append(f'preprocessing does not fit the model: {error}')
    for name, value in arrays.items():
        if not jnp.issubdtype(value.dtype, jnp.floating):
            problems.append(f'{name}: holds {value.dtype}, needed floats')
        elif not jnp.isfinite(value).all():
            problems.append(f'{name}: holds values that are not finite (nan or inf)')
    return problems
