"""What the configurations of Hugging Face's models have in common."""

import json
from collections.abc import Mapping
from pathlib import Path

from vivit_jax.errors import UserError
from vivit_jax.heads import LabelNames, numbered_labels

# By `hidden_act`; all but 'gelu' are the approximation by a hyperbolic tangent.
GELUS = {'gelu': 'exact', 'gelu_new': 'tanh', 'gelu_pytorch_tanh': 'tanh', 'gelu_fast': 'tanh'}


def read_json(path: Path) -> dict:
    """The object in a JSON file; a UserError where there is none."""
    try:
        return dict(json.loads(path.read_text('utf-8')))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f'{path} cannot be read as JSON: {error}') from error


def label_names(config: Mapping, num_classes: int) -> LabelNames:
    """The classes of `id2label`; their numbers where it does not name them all."""
    numbers = numbered_labels(num_classes)
    names = config.get('id2label') or {}
    labels = tuple(names.get(number) for number in numbers)
    return numbers if None in labels else labels
