"""Moments in Time, versions 1 and 2."""

import csv
from pathlib import Path

from vivit_jax.data.listing import AnnotationError, Dataset, Line, Listing
from vivit_jax.data.readers.files import VideoFolder, find_lists, ordered_names, read_lines

_LISTS = {'train': 'training', 'val': 'validation'}


def read(root: Path, annotations: Path, dataset: Dataset, protocol: str) -> Listing:
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
    return Listing(splits, {'label': names})


def _lines(path: Path, folder: str, known: frozenset[str], videos: VideoFolder) -> list[Line]:
    lines = []
    for place, text in read_lines(path):
        video, label, *_ = [*next(csv.reader([text])), '', '']
        if label not in known:
            raise AnnotationError(f'{place}: {label!r} is not in moments_categories.txt')
        values = {'video_path': videos.find([f'{folder}/{video}', video]), 'label': label}
        lines.append(Line(place, values))
    return lines
