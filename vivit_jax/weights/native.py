"""Parameters under the names of this package, in an .npz."""

import json
from collections.abc import Mapping
from pathlib import Path

import flax.traverse_util
import numpy as np

from vivit_jax.model_card import ModelCard
from vivit_jax.weights.files import Tensors, save_tensors
from vivit_jax.weights.source import Weights, clip_grid

_CARD = 'card'


def write_npz(card: ModelCard, params: Mapping, path: Path):
    """Writes parameters by path with slashes, and the card as JSON in the entry `metadata`.

    Raises:
        UserError: it cannot be written.
    """
    flat = flax.traverse_util.flatten_dict(params, sep='/')
    arrays = {name: np.asarray(value) for name, value in flat.items()}
    save_tensors(path, arrays, {_CARD: json.dumps(card.to_json())})


def matches(tensors: Tensors) -> bool:
    """Whether `write_npz` wrote them."""
    return _CARD in tensors.metadata


def read_npz(tensors: Tensors) -> Weights:
    """Reads them back, bit for bit."""
    card = ModelCard.from_json(json.loads(tensors.metadata[_CARD]))
    params = flax.traverse_util.unflatten_dict(dict(tensors), sep='/')
    return Weights('vivit_jax .npz', card, params, clip_grid(card))
