"""Weights read from a file, under the names of this package."""

import dataclasses

from vivit_jax.data.preprocessing import Preprocessing
from vivit_jax.heads import LabelNames


@dataclasses.dataclass(frozen=True)
class Weights:
    """What a reader makes of a file, whatever wrote it.

    Attributes:
        kind: what was found, for people, such as `'image ViT, AugReg .npz'`.
        model: name and keywords for `create_model`, as far as the file tells them. A ViT for images
            is a `vivit_joint` of the tokenizer `uniform_frames`, for clips of one frame.
        params: float32 NumPy tree, the parameters of that model. It may lack the classifier.
        grid: tokens along time, height and width that the position table is made for.
        preprocessing: how videos became clips, where the file tells it.
        label_names: the classes, where the file tells them.
        unused: names in the file of what such a model has no place for.
    """

    kind: str
    model: dict[str, object]
    params: dict
    grid: tuple[int, int, int]
    preprocessing: Preprocessing | None = None
    label_names: LabelNames | None = None
    unused: tuple[str, ...] = ()

    @property
    def is_image_model(self) -> bool:
        """Whether the weights are those of a ViT for images."""
        return self.grid[0] == 1 and self.model['tokenizer'] == 'uniform_frames'
