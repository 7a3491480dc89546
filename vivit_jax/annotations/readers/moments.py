"""Moments in Time, versions 1 and 2."""

import csv
from pathlib import Path

from vivit_jax.annotations.annotation import Annotation, AnnotationError, Annotations
from vivit_jax.annotations.dataset_info import DatasetInfo
from vivit_jax.annotations.readers.text_files import find_lists, ordered_names, read_lines
from vivit_jax.annotations.readers.video_folder import VideoFolder

_LISTS = {'train': 'training', 'val': 'validation'}


def read(root: Path, annotations: Path, dataset: DatasetInfo, protocol: str) -> Annotations:
    """Reads `trainingSet.csv` and `validationSet.csv`: `path,label,votes,votes`, without header.

    The classes are in the order of `moments_categories.txt`. The test split has no public labels.

    Raises:
        AnnotationError: no such files, or an unknown label.
    """
    path = find_lists(annotations, {'classes': ['moments_categories.txt']})['classes']
    pairs = ((place, *text.rpartition(',')[::-2]) for place, text in read_lines(path))
    names = ordered_names(path, pairs)
    files = find_lists(annotations, {split: [f'{word}Set.csv'] for split, word in _LISTS.items()})
    videos = VideoFolder(root)
    splits = {
        split: _lines(path, _LISTS[split], frozenset(names), videos)
        for split, path in files.items()
    }
    return Annotations(splits, {'label': names})


def _lines(path: Path, folder: str, known: frozenset[str], videos: VideoFolder) -> list[Annotation]:
    lines = []
    for place, text in read_lines(path):
        video, label, *_ = [*next(csv.reader([text])), '', '']
        if label not in known:
            raise AnnotationError(f'{place}: {label!r} is not in moments_categories.txt')
        values = {'video_path': videos.find([f'{folder}/{video}', video]), 'label': label}
        lines.append(Annotation(place, values))
    return lines
