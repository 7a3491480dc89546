"""EPIC-KITCHENS-100: parts of long videos, with a verb and a noun."""

import re
from pathlib import Path

from vivit_jax.annotations.annotation import Annotation, AnnotationError, Annotations
from vivit_jax.annotations.dataset_info import DatasetInfo
from vivit_jax.annotations.readers.text_files import class_at, find_lists, ordered_names, read_table
from vivit_jax.annotations.readers.video_folder import VideoFolder
from vivit_jax.heads import numbered_labels

_FOLDERS = ('annotations', 'epic-kitchens-100-annotations')
_SPLITS = {
    'train': ['EPIC_100_train.csv'],
    'val': ['EPIC_100_validation.csv'],
    'test': ['EPIC_100_test_timestamps.csv'],
}
_TIME = re.compile(r'(\d+):(\d\d):(\d\d(?:\.\d*)?)')


def read(root: Path, annotations: Path, dataset: DatasetInfo, protocol: str) -> Annotations:
    """Reads `EPIC_100_{train,validation}.csv` with the columns `verb` and `noun` as labels.

    The classes stand in `EPIC_100_{verb,noun}_classes.csv`; without these files they are numbers.
    Parts are given by their times: the frame numbers belong to the provider's own frames, not to
    the videos.

    Raises:
        AnnotationError: no such files, an impossible class or time.
    """
    files = find_lists(annotations, _SPLITS, _FOLDERS)
    names = {head: _class_names(annotations, head, dataset) for head in dataset.label_columns}
    videos = VideoFolder(root)
    splits = {split: _lines(path, names, videos) for split, path in files.items()}
    return Annotations(splits, names)


def _class_names(annotations: Path, head: str, dataset: DatasetInfo) -> tuple[str, ...]:
    name = f'EPIC_100_{head}_classes.csv'
    places = [annotations / folder / name for folder in ('', *_FOLDERS)]
    path = next(filter(Path.is_file, places), None)
    if path is None:
        return numbered_labels(dataset.num_classes[head])
    rows = read_table(path, ('id', 'key'))
    return ordered_names(path, ((place, row['id'], row['key']) for place, row in rows))


def _lines(path: Path, names: dict[str, tuple[str, ...]], videos: VideoFolder) -> list[Annotation]:
    needed = ('participant_id', 'video_id', 'start_timestamp', 'stop_timestamp')
    lines = []
    for place, row in read_table(path, needed):
        person, video = row['participant_id'], row['video_id']
        values = {
            'video_path': videos.find(
                f'{folder}{video}.MP4'
                for top in ('', 'EPIC-KITCHENS/')
                for folder in (f'{top}{person}/videos/', f'{top}{person}/', top, f'{top}videos/')
            ),
            'start_sec': _seconds(row['start_timestamp'], place),
            'end_sec': _seconds(row['stop_timestamp'], place),
        }
        for head, known in names.items():
            if f'{head}_class' in row:  # not in the test split
                values[head] = class_at(known, row[f'{head}_class'], place)
        lines.append(Annotation(place, values))
    return lines


def _seconds(timestamp: str, place: str) -> str:
    match = _TIME.fullmatch(timestamp)
    if not match:
        raise AnnotationError(f'{place}: {timestamp!r} is no time such as 00:01:02.50')
    hours, minutes, seconds = match.groups()
    return str(round(int(hours) * 3600 + int(minutes) * 60 + float(seconds), 3))
