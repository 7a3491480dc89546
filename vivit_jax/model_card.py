"""The model card: everything beside the parameters that is needed to use a trained model."""

import dataclasses
import json

import numpy as np

from vivit_jax.heads import LabelNames, by_head, map_heads
from vivit_jax.models.registry import specify
from vivit_jax.video.preprocessing import Preprocessing

__all__ = ['ModelCard']

_LAYERS = ('num_layers', 'temporal_num_layers', 'stage_blocks')  # keywords that count layers


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """A description of a trained model, stored with its parameters in every file.

    Attributes:
        model: name and keywords for `create_model`.
        preprocessing: how videos became clips.
        label_names: the classes.
        typical_sec: the median duration of the training videos in seconds, if it is known.
        is_multi_label: whether videos have any number of labels: each class then has a probability
            of its own, the sigmoid of its logit. Otherwise classes share one softmax.
    """

    model: dict[str, object]
    preprocessing: Preprocessing
    label_names: LabelNames
    typical_sec: float | None = None
    is_multi_label: bool = False

    def to_json(self) -> dict:
        """Turns the card into dicts, lists, numbers and strings."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, card: dict) -> 'ModelCard':
        """Makes a card from the result of `to_json`.

        Raises:
            ValueError: the card is damaged: a part is missing or of another type, there is no such
                model, there are more or fewer names than classes, or several heads with any number
                of labels.
        """
        try:
            result = cls(
                card['model'],
                Preprocessing(**card['preprocessing']),
                map_heads(tuple, card['label_names']),
                card.get('typical_sec'),  # older cards have none of these
                card.get('is_multi_label', False),
            )
            num_classes = specify(**result.model).num_classes
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f'the model card is damaged: {error!r}') from error
        names = by_head(result.label_names)
        if not all(isinstance(name, str) for labels in names.values() for name in labels):
            raise ValueError(f'label_names={card["label_names"]!r} must be texts')
        if map_heads(len, result.label_names) != num_classes:
            raise ValueError(
                f'label_names has {map_heads(len, result.label_names)} names, and the model has '
                f'{num_classes} classes'
            )
        if not isinstance(result.typical_sec, int | float | None):
            raise ValueError(f'typical_sec={result.typical_sec!r} must be a number')
        is_multi_label = result.is_multi_label
        if not isinstance(is_multi_label, bool) or (is_multi_label and '' not in names):
            raise ValueError(f'is_multi_label={is_multi_label!r} must be a bool, and of one head')
        return result

    def check_layers(self, num_arrays: int):
        """Raises a ValueError if the model has more layers than its file has arrays.

        To compare the arrays of such a model one by one would take minutes.
        """
        spec = specify(**self.model)
        for key in _LAYERS:
            if np.sum(getattr(spec, key, 0)) > num_arrays:
                raise ValueError(
                    f'model.{key}={getattr(spec, key)} cannot be: there are {num_arrays} arrays'
                )
