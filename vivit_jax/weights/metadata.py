"""The card beside the arrays of a file, without JAX and without PyTorch."""

import json
from collections.abc import Mapping
from pathlib import Path

from vivit_jax.errors import UserError
from vivit_jax.model_card import ModelCard

_CARD = 'vivit_jax'

# Under whose names the arrays are: ours, or PyTorch's, which are called as others call them.
NATIVE, PYTORCH = 'vivit_jax', 'pt'


def card_to_metadata(card: ModelCard, grid: tuple[int, int, int], names: str) -> dict[str, str]:
    """The metadata of a file; the grid is for readers that know nothing of this package."""
    content = {
        'card': card.to_json(),
        'clip_shape': card.preprocessing.clip_shape,
        'grid': grid,
    }
    return {'format': names, _CARD: json.dumps(content)}


def has_card(metadata: Mapping[str, str], names: str) -> bool:
    """Whether there is a card, and the arrays have such names."""
    return _CARD in metadata and metadata.get('format') == names


def metadata_to_card(metadata: Mapping[str, str], path: Path) -> ModelCard:
    """Its inverse.

    Raises:
        UserError: there is no such metadata, or it cannot be read.
    """
    if _CARD not in metadata:
        raise UserError(
            f'{path} does not tell what model its tensors are of: save it with '
            'vivit_jax.torch.save_model(model, path, card), card being the one that '
            'vivit_jax.torch.load_model returned'
        )
    try:
        return ModelCard.from_json(json.loads(metadata[_CARD])['card'])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'{path} has damaged metadata: {error!r}') from error
