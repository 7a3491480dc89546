"""Lists of any dataset: MMAction2's and PySlowFast's."""

import csv
import io
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path

from vivit_jax.annotations.annotation import Annotation, AnnotationError, Annotations
from vivit_jax.annotations.dataset_info import DatasetInfo
from vivit_jax.annotations.readers.text_files import (
    SPLIT_NAMES,
    find_lists,
    read_json,
    read_lines,
    read_text,
)
from vivit_jax.annotations.readers.video_folder import VideoFolder, is_video

# A path, which may contain spaces and commas, and the whole numbers after it.
_ENTRY = re.compile(r'(?P<path>.*?)(?P<numbers>(?:[\s,]+\d+)*)')
_FRAME_LIST = ('original_vido_id', 'path', 'labels')  # sic
_SEVERAL = (
    'several labels for a video are not supported in these lists: list videos with one label each, '
    'or write a CSV and set data.label_separator'
)


def read_mmaction2(
    root: Path, annotations: Path, dataset: DatasetInfo, protocol: str
) -> Annotations:
    """Reads the lists of MMAction2, text or JSON, whose names contain `train`, `val` and `test`.

    Lines are `path label`, `folder num_frames label`, or `folder offset num_frames label`. Lists of
    videos win over lists of frames. The protocol is the number of the split, if splits have one.

    Raises:
        AnnotationError: no such files, several for a split, or lines that cannot be used.
    """
    videos, splits = VideoFolder(root), {}
    for split, words in SPLIT_NAMES.items():
        path = _only_list(annotations, words, protocol)
        if path:
            read = _json_lines if path.suffix == '.json' else _text_lines
            splits[split] = list(read(path, videos, root))
    if not splits:
        number = f'and split_{protocol}' if protocol else 'and without split_1, split_2, split_3'
        raise AnnotationError(
            f'no annotation files in {annotations.absolute()}: looked for .txt and .json files '
            f'with train, val or test {number} in their names; the protocol is what says which'
        )
    return Annotations(splits)


def read_pyslowfast(
    root: Path, annotations: Path, dataset: DatasetInfo, protocol: str
) -> Annotations:
    """Reads `train.csv`, `val.csv` and `test.csv`: a path and a class index, without header.

    They are separated by a space, a comma or a tab. Lists of frames are recognized by their header
    `original_vido_id video_id frame_id path labels`.

    Raises:
        AnnotationError: no such files, or lines that cannot be used.
    """
    names = {split: [f'{word}.csv' for word in words] for split, words in SPLIT_NAMES.items()}
    videos, splits = VideoFolder(root), {}
    for split, path in find_lists(annotations, names).items():
        text = read_text(path)
        if text.startswith(_FRAME_LIST[0]):
            splits[split] = list(_frame_lines(path, text, root))
        else:
            splits[split] = list(_text_lines(path, videos, root))
    return Annotations(splits)


def _only_list(folder: Path, words: tuple[str, ...], protocol: str) -> Path | None:
    """The list of a split, if any."""
    word = re.compile(rf'(?:^|[_\-.])(?:{"|".join(words)})[_\-.]')
    number = f'split_{protocol}_' if protocol else 'split_'
    found = sorted(
        path
        for path in folder.glob('*')
        if path.suffix in ('.txt', '.json')
        and word.search(path.name)
        and (number in f'{path.stem}_') == bool(protocol)
    )
    found = [path for path in found if 'rawframes' not in path.name] or found
    if len(found) > 1:
        raise AnnotationError(
            f'{folder}: which is the list of the split {words[0]!r}: '
            f'{" or ".join(path.name for path in found)}? Keep one in the folder'
        )
    return found[0] if found else None


def _text_lines(path: Path, videos: VideoFolder, root: Path) -> Iterator[Annotation]:
    entries = []
    for place, text in read_lines(path):
        match = _ENTRY.fullmatch(text)
        numbers = match['numbers'].replace(',', ' ').split()
        entries.append((place, match['path'].strip('"'), numbers))
    # Without an extension a line is a folder of frames, unless it has only a label.
    counts = {len(numbers) for _, name, numbers in entries if not is_video(name)} - {0}
    if len(counts) > 1:
        raise AnnotationError(
            f'{path}: lines with {" and ".join(map(str, sorted(counts)))} numbers; {_SEVERAL}'
        )
    for place, name, numbers in entries:
        if not name or len(numbers) > (1 if is_video(name) else 3):
            raise AnnotationError(f'{place}: {_SEVERAL}' if name else f'{place}: no path')
        *frames, label = numbers or ['']
        if frames:
            values = _frames(root, name, *reversed(frames))
        else:
            values = {'video_path': videos.find([name])}
        yield _labeled(place, values, label)


def _json_lines(path: Path, videos: VideoFolder, root: Path) -> Iterator[Annotation]:
    for number, entry in enumerate(read_json(path, list), 1):
        place = f'{path}, entry {number}'
        if not isinstance(entry, dict) or not {'filename', 'frame_dir'} & entry.keys():
            raise AnnotationError(f'{place}: has neither "filename" nor "frame_dir"')
        labels = entry.get('label', [])
        labels = labels if isinstance(labels, list) else [labels]
        if len(labels) > 1:
            raise AnnotationError(f'{place}: {_SEVERAL}')
        if 'filename' in entry:
            values = {'video_path': videos.find([str(entry['filename'])])}
        else:
            values = _frames(root, str(entry['frame_dir']), str(entry.get('total_frames', '')))
        yield _labeled(place, values, str(labels[0]) if labels else '')


def _frame_lines(path: Path, text: str, root: Path) -> Iterator[Annotation]:
    """An annotation for each video of a list of frames; frames of a video follow each other."""
    rows = csv.DictReader(io.StringIO(text, newline=''), delimiter=' ')
    missing = set(_FRAME_LIST) - set(rows.fieldnames)
    if missing:
        raise AnnotationError(f'{path}: no column {sorted(missing)}; it has {rows.fieldnames}')
    numbered = ((rows.line_num, row) for row in rows)
    for _, group in itertools.groupby(numbered, lambda item: item[1][_FRAME_LIST[0]]):
        (number, first), *others = group
        place = f'{path}, line {number}'
        labels = re.split(r'[\s,]+', first['labels'] or '')
        if len(labels) > 1 or not first['path']:
            raise AnnotationError(f'{place}: {_SEVERAL if first["path"] else "no path"}')
        values = _frames(root, os.path.dirname(first['path']), str(1 + len(others)))
        yield _labeled(place, values, labels[0])


def _frames(root: Path, folder: str, num_frames: str, start_frame: str = '') -> dict[str, str]:
    values = {'start_frame': start_frame, 'num_frames': num_frames}
    return {'video_path': os.path.join(root, folder)} | {k: v for k, v in values.items() if v}


def _labeled(place: str, values: dict[str, str], label: str) -> Annotation:
    if label and not label.isdecimal():
        raise AnnotationError(f'{place}: the label {label!r} is no index of a class')
    return Annotation(place, values | ({'label': label} if label else {}))
