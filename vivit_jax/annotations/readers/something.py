"""Something-Something v1 and v2, and Jester, which has the files of v1."""

from pathlib import Path

from vivit_jax.annotations.annotation import Annotation, AnnotationError, Annotations
from vivit_jax.annotations.dataset_info import DatasetInfo
from vivit_jax.annotations.readers.text_files import (
    find_lists,
    ordered_names,
    read_json,
    read_lines,
)
from vivit_jax.annotations.readers.video_folder import VideoFolder

_PREFIXES = {'ssv1': 'something-something-v1', 'jester': 'jester-v1'}
_FOLDERS = ('labels', 'annotations')
_SPLITS = {'train': 'train', 'val': 'validation', 'test': 'test'}
_ANSWERS = 'test-answers.csv'  # labels of the test split, `id;label`, in newer downloads


def read_v1(root: Path, annotations: Path, dataset: DatasetInfo, protocol: str) -> Annotations:
    """Reads `<prefix>-{labels,train,validation,test}.csv`, whose lines are `id;label`.

    The classes are in the order of the labels file, a video is the folder `<id>` of its frames, or
    a video of that name.

    Raises:
        AnnotationError: no such files, or an unknown label.
    """
    prefix = _PREFIXES[dataset.name]

    def named(word: str) -> list[str]:
        return [f'{prefix}-{word}.csv', f'{word}.csv']

    labels = find_lists(annotations, {'labels': named('labels')}, _FOLDERS)['labels']
    names = tuple(text for _, text in read_lines(labels))
    lists = {split: named(word) for split, word in _SPLITS.items()}
    lists['test'].insert(0, _ANSWERS)
    files = find_lists(annotations, lists, _FOLDERS)
    videos = _Videos(root, f'20bn-{prefix}', extension='')
    splits = {split: _pairs(path, names, videos) for split, path in files.items()}
    return Annotations(splits, {'label': names})


def read_v2(root: Path, annotations: Path, dataset: DatasetInfo, protocol: str) -> Annotations:
    """Reads `something-something-v2-{labels,train,validation}.json`, or `labels.json` and so on.

    The class is the template without brackets, in the order of the labels file. The test split has
    labels where there is a file `test-answers.csv`.

    Raises:
        AnnotationError: no such files, or an unknown template.
    """

    def named(word: str) -> list[str]:
        return [f'something-something-v2-{word}.json', f'{word}.json']

    labels = find_lists(annotations, {'labels': named('labels')}, _FOLDERS)['labels']
    numbers = read_json(labels, dict)
    pairs = ((str(labels), str(number), name) for name, number in numbers.items())
    names = ordered_names(labels, pairs)
    lists = {split: named(word) for split, word in _SPLITS.items()}
    lists['test'].insert(0, _ANSWERS)
    videos = _Videos(root, '20bn-something-something-v2', extension='.webm')
    splits = {}
    for split, path in find_lists(annotations, lists, _FOLDERS).items():
        read = _pairs if path.name == _ANSWERS else _objects
        splits[split] = read(path, names, videos)
    return Annotations(splits, {'label': names})


class _Videos:
    def __init__(self, root: Path, folder: str, extension: str):
        self._videos = VideoFolder(root)
        self._places = [f'{path}{{}}{extension}' for path in ('', f'{folder}/', 'videos/')]
        self._places.append(f'videos/{folder}/{{}}{extension}')

    def find(self, video: str) -> str:
        return self._videos.find(place.format(video) for place in self._places)


def _pairs(path: Path, names: tuple[str, ...], videos: _Videos) -> list[Annotation]:
    lines, known = [], frozenset(names)
    for place, text in read_lines(path):
        video, _, label = (part.strip() for part in text.partition(';'))
        lines.append(_line(place, videos.find(video), label, known))
    return lines


def _objects(path: Path, names: tuple[str, ...], videos: _Videos) -> list[Annotation]:
    lines, known = [], frozenset(names)
    for number, entry in enumerate(read_json(path, list), 1):
        place = f'{path}, entry {number}'
        if not isinstance(entry, dict) or 'id' not in entry:
            raise AnnotationError(f'{place}: has no "id"')
        # The label is the sentence with the objects filled in.
        template = str(entry.get('template', '')).replace('[', '').replace(']', '')
        lines.append(_line(place, videos.find(str(entry['id'])), template, known))
    return lines


def _line(place: str, video_path: str, label: str, known: frozenset[str]) -> Annotation:
    if label and label not in known:
        raise AnnotationError(f'{place}: {label!r} is not in the file of labels')
    return Annotation(place, {'video_path': video_path} | ({'label': label} if label else {}))
