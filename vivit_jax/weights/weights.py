"""Weights read from a file, under the names of this package."""

import dataclasses

from vivit_jax.model_card import ModelCard
from vivit_jax.models.registry import specify


@dataclasses.dataclass(frozen=True)
class Weights:
    """What a reader makes of a file, whatever wrote it.

    Attributes:
        kind: what was found, for people, such as `'image ViT, AugReg .npz'`.
        card: model, preprocessing and classes, as far as the file tells them, else as usual: the
            original ViViT's preprocessing, classes called by their numbers. A ViT for images is a
            `vivit_joint` of the tokenizer `uniform_frames` for clips of one frame.
        params: float32 NumPy tree, the parameters of that model.
        grid: tokens along time, height and width that the position table is made for.
        unused: names in the file of what such a model has no place for.
        has_head: whether the file has a classifier; without, `params` lack it, and `card` tells of
            one class.
        step: of the training, where it is known.
        batch_stats: running statistics of batch norms; empty where there are none.
        notes: what was assumed, or looks wrong, for people.
    """

    kind: str
    card: ModelCard
    params: dict
    grid: tuple[int, int, int]
    unused: tuple[str, ...] = ()
    has_head: bool = True
    step: int | None = None
    batch_stats: dict = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def is_image_model(self) -> bool:
        """Whether the weights are those of a ViT for images."""
        return self.grid[0] == 1 and self.card.model.get('tokenizer') == 'uniform_frames'


def clip_grid(card: ModelCard) -> tuple[int, int, int]:
    """Tokens of a model's clips along time, height and width."""
    return specify(**card.model).grid(card.preprocessing.clip_shape)
