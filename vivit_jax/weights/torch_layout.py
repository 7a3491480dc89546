"""Converts names and layouts of arrays between this package and PyTorch, in both directions.

"Ours" means this package's JAX form, "theirs" PyTorch's.
"""

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
    """How an array is changed for PyTorch, and how it is changed back to a given shape of ours."""

    to_torch: Callable[[jax.typing.ArrayLike], jax.typing.ArrayLike]
    to_jax: Callable[[np.ndarray, tuple[int, ...]], np.ndarray]


# A rule: a pattern that matches the whole of our name, their name, and the change of the array.
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

# For each kind of module: our name, their name and the transform of each of its arrays.
NORM = (('scale', 'weight', SAME), ('bias', 'bias', SAME))
LINEAR = (('kernel', 'weight', TO_LAST), ('bias', 'bias', SAME))
INTO_HEADS = (('kernel', 'weight', FROM_FIRST), ('bias', 'bias', FLAT))
BATCH_NORM = (*NORM, ('mean', 'running_mean', SAME), ('var', 'running_var', SAME))
CONV = (('kernel', 'weight', CONVOLUTION), ('bias', 'bias', SAME))
POSITIONS = (('pos_embedding', 'table', SAME),)
RELATIVE_POSITION = tuple((name, name, SAME) for name in ('key_table', 'query_table'))

# The kinds of `Specification.TORCH_NAMES`, besides 'encoder'.
KINDS = {
    'norm': NORM,
    'linear': LINEAR,
    'linear_without_bias': LINEAR[:1],
    'batch_norm': BATCH_NORM,
    'convolution': CONV,
    'convolution_without_bias': CONV[:1],
    'positions': POSITIONS,
    'relative_position': RELATIVE_POSITION,
}


def module_rules(*modules: tuple[str, str, tuple]) -> Rules:
    """Rules for modules, each given as our name, their name and one of the tables above."""
    return tuple(
        (rf'{ours}/{our_name}', f'{theirs}.{their_name}', transform)
        for ours, theirs, parameters in modules
        for our_name, their_name, transform in parameters
    )


def to_torch(params: Mapping, rules: Rules, batch_stats: Mapping = {}) -> dict[str, np.ndarray]:
    """The arrays of our trees under PyTorch's names, float32; views of the source if possible.

    Raises:
        UserError: some parameters have no name in PyTorch; the message lists them.
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
    """Converts PyTorch's tensors to our trees `params` and `batch_stats`, float32.

    Args:
        tensors: tensors by PyTorch's names.
        card: the card of the model.
        rules: gives the rules for the model's specification.
        path: the file that the tensors come from, for messages.
        has_head: whether the tensors include a classifier.

    Raises:
        UserError: tensors are missing, unknown or of the wrong shape, and the message lists all of
            them; or the card describes an impossible model.
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
    """Flattens a tree to paths with slashes, under which params and statistics never collide."""
    return flax.traverse_util.flatten_dict(tree, sep='/')


def _their_names(flat: Mapping[str, object], rules: Rules) -> dict[str, tuple[str, Transform]]:
    """Maps each of our names to PyTorch's name and the transform."""
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
