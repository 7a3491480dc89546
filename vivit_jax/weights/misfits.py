"""Compares the variables of a file with the variables of the model that they should belong to."""

import re
from collections.abc import Iterable, Mapping

import flax.traverse_util
import numpy as np

from vivit_jax.errors import list_some
from vivit_jax.model_card import ModelCard
from vivit_jax.models.registry import create_model
from vivit_jax.models.variables import abstract_variables
from vivit_jax.parameter_names import name_in_stream


def count_layers(pattern: str, names: Iterable[str]) -> int:
    """How many layers there are, by the names of their arrays.

    Args:
        pattern: matches the beginning of a name; its group is the number of a layer, from 0.
        names: names of arrays.

    Raises:
        ValueError: a layer is missing between others.
    """
    numbers = {match[1].lstrip('0') or '0' for x in names if (match := re.match(pattern, x))}
    missing = [number for number in map(str, range(len(numbers))) if number not in numbers]
    if missing:
        found = list_some(sorted(numbers, key=lambda x: (len(x), x))[::-1])
        raise ValueError(f'layer {missing[0]} is missing, and there are the layers {found}')
    return len(numbers)


def find_misfits(
    card: ModelCard, arrays: Mapping[str, np.ndarray], origins: Mapping[str, str] = {}
) -> list[str]:
    """Returns a line with name and shapes for each array that is missing, unknown or misshapen.

    Args:
        card: the card of the model. It is no misfit if the whole classifier is missing.
        arrays: parameters and running statistics, by path with slashes.
        origins: the names of arrays in the file, if they differ from the paths.

    Raises:
        ValueError: the sizes of the model do not fit each other.
    """
    collections = abstract_variables(
        create_model(**card.model), card.preprocessing.clip_shape
    ).values()
    expected = {
        name: shape
        for tree in collections
        for name, shape in flax.traverse_util.flatten_dict(tree, sep='/').items()
    }
    if not any(map(_is_of_head, arrays)):
        expected = {name: shape for name, shape in expected.items() if not _is_of_head(name)}
    lines = []
    for name in [*expected, *(name for name in arrays if name not in expected)]:
        shown = origins.get(name, name)
        if name not in arrays:
            lines.append(f'{name}: missing, needed {expected[name].shape}')
        elif name not in expected:
            lines.append(f'{shown}: {arrays[name].shape}, which this model does not have')
        elif arrays[name].shape != expected[name].shape:
            lines.append(f'{shown}: {arrays[name].shape}, needed {expected[name].shape} ({name})')
    return lines


def _is_of_head(name: str) -> bool:
    return name_in_stream(name).startswith('output_projection')
