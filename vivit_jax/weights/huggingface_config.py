"""Reads the parts of config.json that Hugging Face's image and video models share."""

import json
from collections.abc import Mapping
from pathlib import Path

from vivit_jax.errors import UserError
from vivit_jax.heads import LabelNames, numbered_labels

# `hidden_act` to the keyword `gelu`: all but 'gelu' approximate with a hyperbolic tangent.
GELUS = {'gelu': 'exact', 'gelu_new': 'tanh', 'gelu_pytorch_tanh': 'tanh', 'gelu_fast': 'tanh'}


def read_json(path: Path) -> dict:
    """The object in a JSON file.

    Raises:
        UserError: there is no such file, or it holds no JSON object.
    """
    try:
        return dict(json.loads(path.read_text('utf-8')))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f'{path} cannot be read as JSON: {error}') from error


def label_names(config: Mapping, num_classes: int) -> LabelNames:
    """The class names in `id2label`, or numbers as names if it does not name every class."""
    numbers = numbered_labels(num_classes)
    names = config.get('id2label') or {}
    labels = tuple(names.get(number) for number in numbers)
    return numbers if None in labels else labels
