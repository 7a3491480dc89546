"""Reads and writes files of PyTorch models, which the JAX models can read too."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from vivit_jax.errors import UserError
from vivit_jax.model_card import ModelCard
from vivit_jax.torch.create import create_model
from vivit_jax.weights.metadata import PYTORCH, card_to_metadata, metadata_to_card
from vivit_jax.weights.tensor_files import check_finite, open_tensors, save_tensors


def load_model(path: str | Path) -> tuple[nn.Module, ModelCard]:
    """Loads a model that `vivit_jax.convert --to=torch` or `save_model` wrote.

    >>> model, card = vivit_jax.torch.load_model('vivit.safetensors')

    Returns:
        The model on the CPU in evaluation mode, and its card: `card.preprocessing` tells how to
        make clips, `card.label_names` names the classes.

    Raises:
        UserError: there is no such file, or its tensors are not finite, or do not fit the model
            that it names.
    """
    path = Path(path)
    tensors = open_tensors(path)
    card = metadata_to_card(tensors.metadata, path, len(tensors))
    arrays = {name: np.asarray(value, np.float32) for name, value in tensors.items()}
    check_finite(arrays, str(path))
    state = {name: torch.from_numpy(value) for name, value in arrays.items()}
    return _assemble(card, state, path).eval(), card


def save_model(model: nn.Module, path: str | Path, card: ModelCard):
    """Writes a model for `load_model` and for `vivit_jax.convert --source=...`.

    Args:
        model: a model that `create_model` or `load_model` returned, perhaps fine-tuned since.
        path: a file that ends in `.safetensors`.
        card: the model's name, keywords, preprocessing and classes. Pass the card that
            `load_model` returned, unless the model has changed, for example its classifier.

    Raises:
        UserError: the card describes another model, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix != '.safetensors':
        raise UserError(f'{path} must end in .safetensors')
    state = {name: value.detach().float().cpu() for name, value in model.state_dict().items()}
    grid = _assemble(card, state, path).grid
    arrays = {name: value.numpy() for name, value in state.items()}
    save_tensors(path, arrays, card_to_metadata(card, grid, PYTORCH))


def _assemble(card: ModelCard, state: dict[str, torch.Tensor], path: Path) -> nn.Module:
    """Makes the model of a card from the given tensors."""
    try:
        with torch.device('meta'):  # spends no time or memory on initial values
            model = create_model(**card.model, clip_shape=card.preprocessing.clip_shape)
        model.load_state_dict(state, assign=True)
    except (ValueError, RuntimeError) as error:
        raise UserError(f'{path}: tensors and card are not of one model: {error}') from error
    return model
