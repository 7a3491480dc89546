"""Kinetics-400, 600, 700 and 700-2020: CSV files of YouTube clips, and copies of many layouts."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from vivit_jax.annotations.annotation import Annotation, AnnotationError, Annotations
from vivit_jax.annotations.dataset_info import DatasetInfo
from vivit_jax.annotations.readers.text_files import SPLIT_NAMES, find_lists, read_table
from vivit_jax.annotations.readers.video_folder import VideoFolder

_log = logging.getLogger(__name__)

# Of clips that are damaged in the CVDF copy of Kinetics-400.
_REPLACEMENTS = 'replacement/replacement_for_corrupted_k400'
_ID_LENGTH = 11  # of YouTube


def read(root: Path, annotations: Path, dataset: DatasetInfo, protocol: str) -> Annotations:
    """Reads `train.csv`, `validate.csv` or `val.csv`, and `test.csv` where it has labels.

    A clip is looked for in the folder of its class, with spaces or `_`, and outside of it, as
    `<id>_<start>_<end>` and as `<id>`; a replacement of a damaged clip wins. The classes are the
    sorted labels of the training split, or of another that has all of them.

    Raises:
        AnnotationError: no such files, or a row that names no clip.
    """
    files = find_lists(annotations, {split: _list_names(split) for split in SPLIT_NAMES})
    videos = VideoFolder(root)
    replacements = {
        name[:_ID_LENGTH]: f'{_REPLACEMENTS}/{name}' for name in videos.names(_REPLACEMENTS)
    }
    splits, replaced = {}, 0
    for split, path in files.items():
        folders = list(_folders(split, videos))
        splits[split] = lines = []
        for place, row in read_table(path, ('youtube_id', 'time_start', 'time_end')):
            candidates = _candidates(row, place, folders)
            if row['youtube_id'] in replacements:
                candidates = [replacements[row['youtube_id']]]
                replaced += 1
            values = {'video_path': videos.find(candidates)}
            if row.get('label'):
                values['label'] = row['label']
            lines.append(Annotation(place, values))
    if replaced:
        _log.info('%d clips are those of %s', replaced, _REPLACEMENTS)
    return Annotations(splits, _class_names(splits, dataset))


def _class_names(
    splits: Mapping[str, Sequence[Annotation]], dataset: DatasetInfo
) -> dict[str, tuple[str, ...]]:
    """The sorted labels of the training split, or of another that has all classes."""
    for split, lines in splits.items():
        names = {line.values['label'] for line in lines if 'label' in line.values}
        if split == 'train' or len(names) == dataset.num_classes:
            return {'label': tuple(sorted(names))}
    return {}


def _list_names(split: str) -> list[str]:
    # The CSV files of CVDF's Kinetics-600 are incomplete; its text files are not.
    return [
        f'{start}{word}{end}'
        for start, end in (('', '.txt'), ('', '.csv'), ('kinetics_', '.csv'))
        for word in SPLIT_NAMES[split]
    ] + (['kinetics600_holdout_test.csv'] if split == 'test' else [])


def _folders(split: str, videos: VideoFolder) -> Iterator[str]:
    names = set(videos.names())
    for word in SPLIT_NAMES[split]:
        yield from (f'{name}/' for name in (word, f'videos_{word}') if name in names)
    if 'videos' in names:
        yield 'videos/'
        parts = (name for name in videos.names('videos') if name.startswith('vol_'))
        yield from (f'videos/{name}/' for name in parts)
    yield ''


def _candidates(row: dict[str, str], place: str, folders: Sequence[str]) -> list[str]:
    video, label = row['youtube_id'], row.get('label', '')
    try:
        # Whole seconds, at times written as 12.0.
        start, end = (int(float(row[name])) for name in ('time_start', 'time_end'))
    except (ValueError, OverflowError):
        raise AnnotationError(
            f'{place}: time_start={row["time_start"]!r} and time_end={row["time_end"]!r} should '
            'be seconds'
        ) from None
    if not video:
        raise AnnotationError(f'{place}: no youtube_id')
    classes = dict.fromkeys((f'{label}/', f'{label.replace(" ", "_")}/') if label else ())
    return [
        f'{folder}{group}{name}.mp4'
        for folder in folders
        for group in (*classes, '')
        for name in (f'{video}_{start:06d}_{end:06d}', video)
    ]
