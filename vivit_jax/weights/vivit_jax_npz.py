"""The .npz files of this package: variables under their own names, and a model card."""

from collections.abc import Mapping
from pathlib import Path

import flax.traverse_util
import numpy as np

from vivit_jax.model_card import ModelCard
from vivit_jax.weights.metadata import VIVIT_JAX, card_to_metadata, has_card, metadata_to_card
from vivit_jax.weights.tensor_files import Tensors, save_tensors
from vivit_jax.weights.weights import Weights, clip_grid

_STATISTICS = 'batch_stats'


def write_npz(card: ModelCard, params: Mapping, path: Path, batch_stats: Mapping = {}):
    """Writes an array for each variable, and the card as the entry `metadata`.

    The name of an array is its path with slashes; for running statistics it begins with
    `batch_stats/`.

    Raises:
        UserError: the file cannot be written.
    """
    flat = flax.traverse_util.flatten_dict({**params, _STATISTICS: batch_stats}, sep='/')
    arrays = {name: np.asarray(value) for name, value in flat.items()}
    save_tensors(path, arrays, card_to_metadata(card, clip_grid(card), VIVIT_JAX))


def matches(tensors: Tensors) -> bool:
    """Whether `write_npz` wrote the tensors."""
    return has_card(tensors.metadata, VIVIT_JAX)


def read_npz(tensors: Tensors, path: Path) -> Weights:
    """Reads the file that `write_npz` wrote; every bit is the same.

    Raises:
        UserError: the card is damaged.
    """
    card = metadata_to_card(tensors.metadata, path, len(tensors))
    params = flax.traverse_util.unflatten_dict(dict(tensors), sep='/')
    batch_stats = params.pop(_STATISTICS, {})
    return Weights('vivit_jax .npz', card, params, clip_grid(card), batch_stats=batch_stats)
