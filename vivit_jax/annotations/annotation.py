"""The lines of annotation files, as they stand there: text, and nothing checked yet."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from vivit_jax.errors import UserError

_GROUP_COLUMNS = ('group', 'subject')  # the first that a list has counts


class AnnotationError(UserError):
    """Annotations cannot be used; the message names the file and the line and says what to do."""


class Annotation(NamedTuple):
    """One video in an annotation file.

    Attributes:
        place: file and line, for messages.
        values: text by the columns of the native CSV: `video_path` (of depth alone the same as
            `depth_path`), the labels (class names, or
            indices from 0) and, if the file has them, `depth_path`, `start_sec`, `end_sec`,
            `start_frame`, `num_frames`, `group` and `subject`.
    """

    place: str
    values: dict[str, str]


def find_group_column(lines: Sequence[Annotation], label_columns: Collection[str]) -> str | None:
    """The column that says which videos belong together, if there is one."""
    columns = {column for line in lines for column in line.values} - {*label_columns}
    return next((name for name in _GROUP_COLUMNS if name in columns), None)


def split_labels(cell: str, separator: str) -> list[str]:
    """The labels in a cell of a column of labels, each once; none in an empty cell.

    Args:
        cell: of an annotation.
        separator: what stands between two labels; '': the cell is one label.
    """
    if not separator:
        return [cell]
    return list(dict.fromkeys(filter(None, map(str.strip, cell.split(separator)))))


@dataclasses.dataclass(frozen=True)
class Annotations:
    """What a reader finds in the annotation files of a dataset.

    Attributes:
        splits: annotations by `'train'`, `'val'`, `'test'`.
        label_names: for each label column whose classes have an order, their names in that order.
        expected: published size of a split, in words, if it is known.
        val_fraction: part of `'train'` that becomes a validation split if the config does not say.
    """

    splits: Mapping[str, Sequence[Annotation]]
    label_names: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    expected: Mapping[str, str] = dataclasses.field(default_factory=dict)
    val_fraction: float = 0.0
