"""How PyTorch stores arrays that we store otherwise, and both directions between the names."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import flax.traverse_util
import jax
import numpy as np

from vivit_jax.errors import UserError
from vivit_jax.layers.specification import Specification
from vivit_jax.model_card import ModelCard
from vivit_jax.models.registry import create_model
from vivit_jax.models.variables import abstract_variables


@dataclasses.dataclass(frozen=True)
class Transform:
    """What happens to an array on its way to PyTorch, and back to a shape of ours."""

    to_torch: Callable[[jax.typing.ArrayLike], jax.typing.ArrayLike]
    to_jax: Callable[[np.ndarray, tuple[int, ...]], np.ndarray]


# Pattern of a name of ours, name in PyTorch, what happens to the array; one full match each.
Rules = tuple[tuple[str, str, Transform], ...]

SAME = Transform(lambda x: x, np.reshape)
# Biases of heads [k e] become one [k·e].
FLAT = Transform(lambda x: x.reshape(-1), np.reshape)
# Kernels [*inputs outputs], or [inputs *outputs], become matrices [outputs inputs].
TO_LAST = Transform(lambda x: x.reshape(-1, x.shape[-1]).T, lambda x, shape: x.T.reshape(shape))
FROM_FIRST = Transform(lambda x: x.reshape(x.shape[0], -1).T, lambda x, shape: x.T.reshape(shape))
# Kernels of convolutions [... c d] become [d c ...].
CONVOLUTION = Transform(
    lambda x: x.transpose(x.ndim - 1, x.ndim - 2, *range(x.ndim - 2)),
    lambda x, shape: x.transpose(*range(2, x.ndim), 1, 0),
)

# Our name and PyTorch's for each parameter, or running statistic, of a kind of module.
NORM = (('scale', 'weight', SAME), ('bias', 'bias', SAME))
LINEAR = (('kernel', 'weight', TO_LAST), ('bias', 'bias', SAME))
INTO_HEADS = (('kernel', 'weight', FROM_FIRST), ('bias', 'bias', FLAT))
BATCH_NORM = (*NORM, ('mean', 'running_mean', SAME), ('var', 'running_var', SAME))
CONV = (('kernel', 'weight', CONVOLUTION), ('bias', 'bias', SAME))
POSITIONS = (('pos_embedding', 'table', SAME),)
RELATIVE_POSITION = tuple((name, name, SAME) for name in ('key_table', 'query_table'))

# The kinds of `Specification.TORCH_NAMES`.
KINDS = {
    'norm': NORM,
    'linear': LINEAR,
    'batch_norm': BATCH_NORM,
    'convolution': CONV,
    'positions': POSITIONS,
    'relative_position': RELATIVE_POSITION,
}


def module_rules(*modules: tuple[str, str, tuple]) -> Rules:
    """Rules for the parameters of modules: our name, their name, and one of the tables above."""
    return tuple(
        (rf'{ours}/{our_name}', f'{theirs}.{their_name}', transform)
        for ours, theirs, parameters in modules
        for our_name, their_name, transform in parameters
    )


def to_torch(params: Mapping, rules: Rules, batch_stats: Mapping = {}) -> dict[str, np.ndarray]:
    """Our trees under their names, float32; views of the source where possible.

    Raises:
        UserError: parameters have no name in PyTorch, all of which are listed.
    """
    flat = {**_flatten(params), **_flatten(batch_stats)}
    return {
        theirs: transform.to_torch(np.asarray(flat[ours], np.float32))
        for ours, (theirs, transform) in _their_names(flat, rules).items()
    }


def from_torch(
    tensors: Mapping[str, np.ndarray],
    card: ModelCard,
    rules: Callable[[Specification], Rules],
    path: Path,
    *,
    has_head: bool = True,
) -> dict[str, dict]:
    """The variables of a model as our trees `params` and `batch_stats`, float32.

    Args:
        tensors: by their names.
        card: of the model.
        rules: the rules for a model.
        path: where the tensors are from, for messages.
        has_head: whether the tensors have a classifier.

    Raises:
        UserError: tensors are missing, unknown or of the wrong shape, all of which are listed; or
            there can be no such model.
    """
    try:
        model = create_model(**card.model)
        expected = abstract_variables(model, card.preprocessing.clip_shape)
    except (ValueError, TypeError) as error:
        raise UserError(f'{path} names a model that cannot be made: {error}') from error
    collections = {name: _flatten(tree) for name, tree in expected.items()}
    expected = {name: x for flat in collections.values() for name, x in flat.items()}
    if not has_head:
        expected = {k: v for k, v in expected.items() if not k.startswith('output_projection')}
    names = _their_names(expected, rules(model.spec))
    found, problems = {}, []
    for ours, (theirs, transform) in names.items():
        shape = jax.eval_shape(transform.to_torch, expected[ours]).shape
        tensor = tensors.get(theirs)
        if tensor is None:
            problems.append(f'{theirs}: missing, needed {shape}')
        elif tensor.shape != shape:
            problems.append(f'{theirs}: {tensor.shape}, needed {shape}')
        else:
            tensor = transform.to_jax(tensor, expected[ours].shape)
            found[ours] = np.ascontiguousarray(tensor, np.float32)
    unknown = tensors.keys() - {theirs for theirs, _ in names.values()}
    problems += [f'{name}: the model has no such tensor' for name in sorted(unknown)]
    if problems:
        raise UserError('\n  '.join([f'{path} does not fit {card.model["name"]}:', *problems]))
    return {
        collection: flax.traverse_util.unflatten_dict(
            {name: found[name] for name in flat if name in found}, sep='/'
        )
        for collection, flat in collections.items()
    }


def _flatten(tree: Mapping) -> dict[str, object]:
    """By path with slashes; no parameter is called as a running statistic is."""
    return flax.traverse_util.flatten_dict(tree, sep='/')


def _their_names(flat: Mapping[str, object], rules: Rules) -> dict[str, tuple[str, Transform]]:
    """For each name of ours that in PyTorch and the transform."""
    names, unknown = {}, []
    for ours in flat:
        for pattern, theirs, transform in rules:
            if match := re.fullmatch(pattern, ours):
                names[ours] = match.expand(theirs), transform
                break
        else:
            unknown.append(ours)
    if unknown:
        raise UserError(f'no rule tells the PyTorch name of {", ".join(unknown)}')
    return names
