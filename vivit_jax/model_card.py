"""The model card: with the parameters it makes a trained model usable on its own."""

import dataclasses
import json

from vivit_jax.heads import LabelNames, map_heads
from vivit_jax.video.preprocessing import Preprocessing


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """Stored beside the parameters in every checkpoint and in every converted file.

    Attributes:
        model: name and keywords for `create_model`.
        preprocessing: how videos became clips.
        label_names: the classes.
    """

    model: dict[str, object]
    preprocessing: Preprocessing
    label_names: LabelNames

    def to_json(self) -> dict:
        """As plain lists, numbers and strings."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, card: dict) -> 'ModelCard':
        """The inverse of `to_json`."""
        return cls(
            card['model'],
            Preprocessing(**card['preprocessing']),
            map_heads(tuple, card['label_names']),
        )
