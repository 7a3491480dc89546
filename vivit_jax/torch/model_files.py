"""Models in files that PyTorch and JAX share."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from vivit_jax.errors import UserError
from vivit_jax.model_card import ModelCard
from vivit_jax.torch.create import create_model
from vivit_jax.weights.metadata import PYTORCH, card_to_metadata, metadata_to_card
from vivit_jax.weights.tensor_files import open_tensors, save_tensors


def load_model(path: str | Path) -> tuple[nn.Module, ModelCard]:
    """Loads a model that `vivit_jax.convert --to=torch` or `save_model` wrote.

    >>> model, card = vivit_jax.torch.load_model('vivit.safetensors')

    Returns:
        The model on the CPU in evaluation mode, and the card: `card.preprocessing` tells how to
        make clips for it, `card.label_names` its classes.

    Raises:
        UserError: there is no such file, or its tensors are not those of the model it names.
    """
    path = Path(path)
    tensors = open_tensors(path)
    card = metadata_to_card(tensors.metadata, path)
    state = {
        name: torch.from_numpy(np.asarray(value, np.float32)) for name, value in tensors.items()
    }
    return _assemble(card, state, path).eval(), card


def save_model(model: nn.Module, path: str | Path, card: ModelCard):
    """Writes a model for `load_model` and for `vivit_jax.convert --source=...`.

    Args:
        model: one of `create_model`, such as a fine-tuned one.
        path: file that ends in `.safetensors`.
        card: its name, keywords, preprocessing and classes. That of `load_model`, unless the model
            has become another one, as with a new classifier.

    Raises:
        UserError: the card is that of another model, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix != '.safetensors':
        raise UserError(f'{path} must end in .safetensors')
    state = {name: value.detach().float().cpu() for name, value in model.state_dict().items()}
    grid = _assemble(card, state, path).grid
    arrays = {name: value.numpy() for name, value in state.items()}
    save_tensors(path, arrays, card_to_metadata(card, grid, PYTORCH))


def _assemble(card: ModelCard, state: dict[str, torch.Tensor], path: Path) -> nn.Module:
    """The model of a card around the given tensors."""
    try:
        with torch.device('meta'):  # neither memory nor random numbers for what is replaced
            model = create_model(**card.model, clip_shape=card.preprocessing.clip_shape)
        model.load_state_dict(state, assign=True)
    except (ValueError, RuntimeError) as error:
        raise UserError(f'{path}: tensors and card are not of one model: {error}') from error
    return model
