"""The model card: everything beside the parameters that is needed to use a trained model."""

import dataclasses
import json

from vivit_jax.heads import LabelNames, map_heads
from vivit_jax.video.preprocessing import Preprocessing

__all__ = ['ModelCard']


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """A description of a trained model, stored with its parameters in every file.

    Attributes:
        model: name and keywords for `create_model`.
        preprocessing: how videos became clips.
        label_names: the classes.
        typical_sec: the median duration of the training videos in seconds, if it is known.
    """

    model: dict[str, object]
    preprocessing: Preprocessing
    label_names: LabelNames
    typical_sec: float | None = None

    def to_json(self) -> dict:
        """Turns the card into dicts, lists, numbers and strings."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, card: dict) -> 'ModelCard':
        """Makes a card from the result of `to_json`."""
        return cls(
            card['model'],
            Preprocessing(**card['preprocessing']),
            map_heads(tuple, card['label_names']),
            card.get('typical_sec'),  # older cards have none
        )
