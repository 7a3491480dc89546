"""CSV files with the header `video_path,label`: the project's own annotations."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from vivit_jax.annotations.annotation import Annotation, AnnotationError, Annotations
from vivit_jax.annotations.readers.text_files import read_lines, read_table
from vivit_jax.annotations.readers.video_folder import is_video
from vivit_jax.errors import near_paths

_SEPARATORS = {',': ',', ';': "';'", '\t': 'tab', '|': "'|'", ' ': "' '"}  # as a shell takes them


def read_csv_files(
    files: Mapping[str, str],
    root: str,
    label_columns: Sequence[str],
    separator: str = ',',
    *,
    needs_labels: bool = True,
) -> Annotations:
    """Reads a CSV for each split.

    Args:
        files: CSV by split.
        root: folder of the video paths; '': the folder of each CSV.
        label_columns: columns that must be there, besides `video_path`, or `depth_path` in a list
            of depth videos.
        separator: the character between two columns.
        needs_labels: whether a line without a label is an error.

    Raises:
        AnnotationError: a file or a column is missing, or a line has no video.
    """
    splits = {}
    for split, path in files.items():
        if os.path.isdir(path):
            raise AnnotationError(
                f'data.{split}_csv={path} is a folder: for a folder of videos per class give '
                f'--config.data.root={path} and no CSV'
            )
        splits[split] = _read_csv(Path(path), root, label_columns, separator, needs_labels)
    return Annotations(splits)


def _read_csv(
    path: Path, root: str, label_columns: Sequence[str], separator: str, needs_labels: bool
) -> list[Annotation]:
    needed = ('video_path', *label_columns)
    if not os.path.isfile(path):
        raise AnnotationError(
            f'no annotation file at {path.absolute()}{near_paths(path)}. It should be a CSV with '
            f'the header "{",".join(needed)}" and a line per video, paths relative to its own '
            'folder or to data.root. To see a config run without its data, add ":runlocal" to '
            '--config.'
        )
    is_depth = _check_header(path, needed, separator)
    if is_depth:
        needed = ('depth_path', *label_columns)
    hint = '. Those with labels are named by data.label_columns'
    lines = []
    for place, values in read_table(path, needed, hint, separator):
        filled = needed if needs_labels else needed[:1]
        empty = [name for name in filled if not values[name]]
        if empty:
            raise AnnotationError(f'{place}: no {" and no ".join(empty)}')
        for column in ('video_path', 'depth_path'):
            if values.get(column):
                values[column] = os.path.join(root or path.parent, values[column])
        if is_depth:
            values['video_path'] = values['depth_path']
        lines.append(Annotation(place, values))
    if not lines:
        raise AnnotationError(f'{path}: the split is empty: it has a header and no videos')
    return lines


def _check_header(path: Path, needed: Sequence[str], separator: str) -> bool:
    """Whether the file lists depth videos alone: it has depth_path instead of video_path.

    Raises:
        AnnotationError: the first line is a video, or has another separator.
    """
    for place, header in read_lines(path)[:1]:
        if any(map(is_video, re.split(r'[,;|\s]+', header))):
            raise AnnotationError(
                f'{place}: {header!r} is a video and no header: write {separator.join(needed)!r} '
                'as the first line. data.source=pyslowfast and mmaction2 read lists without header'
            )
        others = [x for x in _SEPARATORS if x in header]
        if separator not in header and others:
            raise AnnotationError(
                f'{place}: {header!r} looks separated by {others[0]!r} and not by {separator!r}: '
                f'give --config.data.separator={_SEPARATORS[others[0]]}'
            )
        columns = {column.strip() for column in header.split(separator)}
        return 'depth_path' in columns and 'video_path' not in columns
    return False
