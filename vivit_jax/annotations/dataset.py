"""Labelled videos by split: a dataset that was checked."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np

from vivit_jax.heads import LabelNames, PerHead, map_heads

# The fields that name a part of a video.
PART_COLUMNS = ('start_sec', 'end_sec', 'start_frame', 'num_frames')


@dataclasses.dataclass(frozen=True, slots=True)
class LabeledVideo:
    """One labelled video, or one labelled part of a video.

    Attributes:
        video_path: file to decode, or folder of frames.
        label: index of the class, of each head; with any number of labels, their indices in
            ascending order.
        start_sec, end_sec: the part of a file; None: from its start, to its end.
        start_frame, num_frames: the part of a folder: how many frames precede the part, and how
            many it has; None: from the first frame, to the last.
        depth_path: the depth of an RGB video: a file, or a folder of frames; None: there is none.
        group: what the video shares with others, such as a person, so that all of them should be
            in one split; None: unknown.
    """

    video_path: str
    label: PerHead[int] | tuple[int, ...]
    start_sec: float | None = None
    end_sec: float | None = None
    start_frame: int | None = None
    num_frames: int | None = None
    depth_path: str | None = None
    group: str | None = None


def class_indices(label: int | tuple[int, ...]) -> tuple[int, ...]:
    """The classes of a label of one head: one, or any number of them."""
    return label if isinstance(label, tuple) else (label,)


def count_classes(videos: Sequence[LabeledVideo], label_names: LabelNames) -> PerHead[np.ndarray]:
    """How many videos each class has, int64 [classes] of each head."""

    def count(names: tuple[str, ...], labels: tuple) -> np.ndarray:
        indices = [index for label in labels for index in class_indices(label)]
        return np.bincount(np.array(indices, int), minlength=len(names))

    labels = map_heads(lambda *labels: labels, *(video.label for video in videos))
    return map_heads(count, label_names, labels)


_Split = TypeVar('_Split', bound=Sequence[LabeledVideo])


@dataclasses.dataclass(frozen=True)
class Dataset(Generic[_Split]):
    """The splits of a dataset and its classes.

    Attributes:
        splits: by `'train'`, `'val'`, `'test'`: lists of labelled videos after the check, and
            after loading a `VideoSource` each, which opens them.
        label_names: the classes.
        expected: published size of a split, in words, if it is known.
        val_is_drawn: whether `'val'` is a part of the training list, see `draw_validation`.
        label_separator: what stands between the labels of a video in lists; '': every video has
            one label.
    """

    splits: Mapping[str, _Split]
    label_names: LabelNames
    expected: Mapping[str, str] = dataclasses.field(default_factory=dict)
    val_is_drawn: bool = False
    label_separator: str = ''
