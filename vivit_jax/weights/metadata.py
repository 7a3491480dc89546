"""The model card in the metadata of a file of arrays; needs neither JAX nor PyTorch."""

import json
from collections.abc import Mapping
from pathlib import Path

from vivit_jax.errors import UserError
from vivit_jax.model_card import ModelCard
from vivit_jax.weights.json_files import parse_json

_CARD = 'vivit_jax'

# The naming scheme of the arrays: this package's, or PyTorch's (safetensors `format: pt`).
VIVIT_JAX, PYTORCH = 'vivit_jax', 'pt'


def card_to_metadata(card: ModelCard, grid: tuple[int, int, int], names: str) -> dict[str, str]:
    """The metadata of a file.

    Args:
        card: the card of the model.
        grid: tokens along time, height and width, for other programs that read the file.
        names: `VIVIT_JAX` or `PYTORCH`.
    """
    content = {
        'card': card.to_json(),
        'clip_shape': card.preprocessing.clip_shape,
        'grid': grid,
    }
    return {'format': names, _CARD: json.dumps(content)}


def has_card(metadata: Mapping[str, str], names: str) -> bool:
    """Whether metadata hold a card and declare the naming scheme `names`."""
    return _CARD in metadata and metadata.get('format') == names


def metadata_to_card(metadata: Mapping[str, str], path: Path, num_arrays: int) -> ModelCard:
    """Reads the card that `card_to_metadata` wrote.

    Args:
        metadata: of the file.
        path: the file.
        num_arrays: how many arrays the file holds.

    Raises:
        UserError: there is no card, it is damaged, or its model has more layers than arrays.
    """
    if _CARD not in metadata:
        raise UserError(
            f'{path} does not tell what model its tensors belong to: save it with '
            'vivit_jax.torch.save_model(model, path, card), card being the one that '
            'vivit_jax.torch.load_model returned'
        )
    content = parse_json(metadata[_CARD], f'{path}: {_CARD} of the metadata')
    try:
        card = ModelCard.from_json(content.get('card'))
        card.check_layers(num_arrays)
    except ValueError as error:
        raise UserError(f'{path} has damaged metadata: {error}') from error
    return card
