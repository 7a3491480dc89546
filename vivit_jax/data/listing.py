"""What reading a dataset's annotation files gives, before anything is checked."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vivit_jax.errors import UserError
from vivit_jax.heads import PerHead


class AnnotationError(UserError):
    """A list of videos cannot be used; the message says which, where, and what to do."""


class Line(NamedTuple):
    """A video in an annotation file.

    Attributes:
        place: file and line, for messages.
        values: by the columns of the native CSV: `video_path`, the labels (class names, or indices
            from 0), and where there are any `start_sec`, `end_sec`, `start_frame`, `num_frames`.
    """

    place: str
    values: dict[str, str]


@dataclasses.dataclass(frozen=True)
class Listing:
    """The splits of a dataset, as listed.

    Attributes:
        splits: lines by `'train'`, `'val'`, `'test'`.
        label_names: for label columns whose classes have an order, their names in it.
        expected: what is known of the size of a split, in words.
    """

    splits: Mapping[str, Sequence[Line]]
    label_names: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    expected: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What is known of a dataset, whoever's copy it is.

    Attributes:
        name: as in `DATASETS`.
        read: lists the videos, given their folder, that of the annotation files, this dataset, and
            one of `protocols`.
        num_classes: of the only head or of each; None: as many as the files have.
        splits: for every protocol, videos by split as far as known; the first is the default.
        source: who counted them.
        label_columns: one per head.
        flip: mirroring keeps the class.
        flip_swaps: words of the class names that change places when a video is mirrored.
        sampling: keywords of `Preprocessing`, as published; it has defaults for the others.
        views: temporal × spatial views of the test.
    """

    name: str
    read: Callable[[Path, Path, 'Dataset', str], Listing]
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
        """Ways to split it."""
        return tuple(self.splits)
