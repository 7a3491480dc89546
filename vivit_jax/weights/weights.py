"""Weights that were read from a file, under this package's parameter names."""

import dataclasses

from vivit_jax.model_card import ModelCard
from vivit_jax.models.registry import specify
from vivit_jax.weights.positions import PositionResize


@dataclasses.dataclass(frozen=True)
class Weights:
    """The result of every reader of weights, whichever program wrote the file.

    Attributes:
        kind: the kind of file, for people, such as `'image ViT, AugReg .npz'`.
        card: model, preprocessing and classes. If the file does not tell them, the card has the
            original ViViT's preprocessing and numbers as class names. A ViT for images is a
            `vivit_joint` with the tokenizer `uniform_frames`, a ResNet for images a `v4d` without
            blocks and without temporal kernels, both for clips of one frame.
        params: the parameters of that model, a tree of float32 NumPy arrays.
        grid: tokens along time, height and width for which the position table was made.
        unused: names of arrays in the file for which the model has no place.
        has_head: whether the file has a classifier. If not, `params` have none either, and `card`
            says one class.
        step: the training step of the weights, or None if the file does not tell it.
        batch_stats: running statistics of batch norms; empty if the model has no batch norm.
        notes: assumptions that the reader made, and values that look wrong, for people.
        position_resize: how the library of the file interpolates positions for other grids, see
            `resize_positions`.
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
    position_resize: PositionResize = 'linear'

    @property
    def is_image_model(self) -> bool:
        """Whether the weights belong to a model for images."""
        model = self.card.model
        embeds_frames = model.get('tokenizer') == 'uniform_frames'
        return self.grid[0] == 1 and (embeds_frames or max(model.get('temporal_kernels', [3])) == 1)


def clip_grid(card: ModelCard) -> tuple[int, int, int]:
    """The number of tokens of a model's clip along time, height and width."""
    return specify(**card.model).grid(card.preprocessing.clip_shape)
