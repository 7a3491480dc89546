"""The description of a published dataset."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

from vivit_jax.annotations.annotation import Annotations
from vivit_jax.heads import PerHead


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """A published dataset, the same for everybody who has a copy of it.

    Attributes:
        name: its key in `vivit_jax.annotations.catalog.DATASETS`.
        read: reads the annotation files. Arguments: the folder of the videos, the folder of the
            annotation files, this description, and one of `protocols`.
        num_classes: of the only head or of each; None: as many as the files have.
        splits: for every protocol, the published number of videos by split, if it is known; the
            first protocol is the default.
        source: who counted the videos.
        label_columns: one per head.
        flip: whether mirroring keeps the class.
        flip_swaps: words of the class names that change places when a video is mirrored.
        sampling: keywords of `Preprocessing`, as published; the others have their defaults.
        views: temporal × spatial views of the test.
    """

    name: str
    read: Callable[[Path, Path, 'DatasetInfo', str], Annotations]
    num_classes: PerHead[int] | None
    splits: Mapping[str, Mapping[str, int]]
    source: str = ''
    label_columns: tuple[str, ...] = ('label',)
    flip: bool = True
    flip_swaps: tuple[tuple[str, str], ...] = ()
    sampling: Mapping[str, object] = dataclasses.field(default_factory=dict)
    views: str = '1x1'

    @property
    def protocols(self) -> tuple[str, ...]:
        """The ways to split the dataset."""
        return tuple(self.splits)
