"""CSV files with the header `video_path,label`: the project's own annotations."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from vivit_jax.annotations.annotation import Annotation, AnnotationError, Annotations
from vivit_jax.annotations.readers.text_files import read_table


def read_csv_files(
    files: Mapping[str, str], root: str, label_columns: Sequence[str]
) -> Annotations:
    """Reads a CSV for each split.

    Args:
        files: CSV by split.
        root: folder of the video paths; '': the folder of each CSV.
        label_columns: columns that must be there, besides `video_path`.

    Raises:
        AnnotationError: a file or a column is missing, or a line has no video.
    """
    return Annotations(
        {split: _read_csv(Path(path), root, label_columns) for split, path in files.items()}
    )


def _read_csv(path: Path, root: str, label_columns: Sequence[str]) -> list[Annotation]:
    needed = ('video_path', *label_columns)
    if not path.is_file():
        raise AnnotationError(
            f'no annotation file at {path.absolute()}. It should be a CSV with the header '
            f'"{",".join(needed)}" and a line per video, paths relative to its own folder or to '
            'data.root. To see a config run without its data, add ":runlocal" to --config.'
        )
    hint = '. Those with labels are named by data.label_columns'
    lines = []
    for place, values in read_table(path, needed, hint):
        empty = [name for name in needed if not values[name]]
        if empty:
            raise AnnotationError(f'{place}: no {" and no ".join(empty)}')
        values['video_path'] = os.path.join(root or path.parent, values['video_path'])
        lines.append(Annotation(place, values))
    if not lines:
        raise AnnotationError(f'{path}: the split is empty: it has a header and no videos')
    return lines
