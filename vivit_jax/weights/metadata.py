"""The model card in the metadata of a file of arrays; needs neither JAX nor PyTorch."""

import json
from collections.abc import Mapping
from pathlib import Path

from vivit_jax.errors import UserError
from vivit_jax.model_card import ModelCard

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


def metadata_to_card(metadata: Mapping[str, str], path: Path) -> ModelCard:
    """Reads the card that `card_to_metadata` wrote.

    Raises:
        UserError: there is no card, or it is damaged.
    """
    if _CARD not in metadata:
        raise UserError(
            f'{path} does not tell what model its tensors belong to: save it with '
            'vivit_jax.torch.save_model(model, path, card), card being the one that '
            'vivit_jax.torch.load_model returned'
        )
    try:
        return ModelCard.from_json(json.loads(metadata[_CARD])['card'])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'{path} has damaged metadata: {error!r}') from error
