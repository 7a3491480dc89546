"""What readers share: finding files, and reading lists, tables and JSON."""

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vivit_jax.data.listing import AnnotationError

SPLIT_NAMES = {
    'train': ('train', 'training'),
    'val': ('val', 'validation', 'validate', 'valid'),
    'test': ('test', 'testing'),
}

_VIDEO_EXTENSIONS = {
    *('.3gp', '.avi', '.flv', '.m4v', '.mkv', '.mov', '.mp4'),
    *('.mpeg', '.mpg', '.ogv', '.ts', '.webm', '.wmv'),
}


def is_video(name: str) -> bool:
    """Whether the extension of a file name, in any case, is that of a video."""
    return os.path.splitext(name)[1].lower() in _VIDEO_EXTENSIONS


class VideoFolder:
    """Finds videos under a folder, listing each of its folders once.

    Args:
        root: the folder.
        ignore_case: names may differ from those asked for in capitals.
    """

    def __init__(self, root: str | os.PathLike, *, ignore_case: bool = False):
        self._root = os.fspath(root)
        self._key = str.casefold if ignore_case else str
        self._listed = {}

    def names(self, folder: str = '') -> list[str]:
        """Sorted names in a folder; none where it does not exist."""
        return sorted(self._list(folder)[0].values())

    def find(self, candidates: Iterable[str]) -> str:
        """Path of the first of some files that exists.

        A video may have another extension than asked for, or be a folder of frames with its name.
        Where nothing exists, the path is the candidate in the deepest folder that does.

        Args:
            candidates: paths relative to the root.
        """
        near = []
        for candidate in candidates:
            folder, name = os.path.split(candidate)
            names, stems = self._list(folder)
            key = self._key(name)
            stem = os.path.splitext(key)[0] if is_video(key) else key
            found = names.get(key) or stems.get(stem) or names.get(stem)
            if found:
                return os.path.join(self._path(folder), found)
            near.append((folder.count('/') + bool(folder) if names else -1, candidate))
        deepest = max(near, key=lambda item: item[0])
        return os.path.join(self._root, deepest[1])

    def _path(self, folder: str) -> str:
        path = os.path.join(self._root, folder)
        if self._key is str or not folder or os.path.isdir(path):
            return path
        parent, name = os.path.split(folder)
        return os.path.join(self._path(parent), self._list(parent)[0].get(self._key(name), name))

    def _list(self, folder: str) -> tuple[dict[str, str], dict[str, str]]:
        """The names in a folder, and the videos by their name without extension."""
        if folder not in self._listed:
            try:
                names = sorted(os.listdir(self._path(folder)))
            except OSError:
                names = []
            stems = {}
            for name in filter(is_video, names):
                stems.setdefault(self._key(os.path.splitext(name)[0]), name)
            self._listed[folder] = {self._key(name): name for name in names}, stems
        return self._listed[folder]


def find_lists(
    folder: Path, names: Mapping[str, Sequence[str]], subfolders: Sequence[str] = ('annotations',)
) -> dict[str, Path]:
    """The first existing file for each key; keys with none are left out.

    Args:
        folder: where to look.
        names: candidates for each key, such as the splits.
        subfolders: where to look too.

    Raises:
        AnnotationError: there is none at all.
    """
    found = {}
    for key, candidates in names.items():
        paths = [folder / sub / name for name in candidates for sub in ('', *subfolders)]
        existing = next(filter(Path.is_file, paths), None)
        if existing:
            found[key] = existing
    if not found:
        wanted = ', '.join(name for candidates in names.values() for name in candidates)
        raise AnnotationError(
            f'no annotation files in {folder.absolute()}: looked for {wanted}, there and in '
            f'{" and ".join(f"{sub}/" for sub in subfolders)}'
        )
    return found


def read_text(path: Path) -> str:
    """A text in UTF-8, with or without a byte order mark.

    Raises:
        AnnotationError: it cannot be read.
    """
    try:
        text = path.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise AnnotationError(f'{path}: is not in UTF-8 ({error})') from error
    except OSError as error:
        raise AnnotationError(f'{path}: {error.strerror}') from error
    if '\0' in text:
        raise AnnotationError(f'{path}: is not a text: it has null bytes')
    return text


def read_lines(path: Path) -> list[tuple[str, str]]:
    """Place and text of every line that is not blank, without spaces around it."""
    lines = enumerate(read_text(path).splitlines(), 1)
    return [(f'{path}, line {n}', text.strip()) for n, text in lines if text.strip()]


def read_table(
    path: Path, needed: Sequence[str] = (), hint: str = ''
) -> list[tuple[str, dict[str, str]]]:
    """Place and values, by column, of the rows of a CSV file with a header.

    Raises:
        AnnotationError: it has no such columns; the message ends in `hint`.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=''))
    reader.fieldnames = columns = [name.strip() for name in reader.fieldnames or []]
    missing = [name for name in needed if name not in columns]
    if missing:
        raise AnnotationError(f'{path}: no column {missing}; the header has {columns}{hint}')
    try:
        return [
            (
                f'{path}, line {reader.line_num}',
                {key: (value or '').strip() for key, value in row.items() if key},
            )
            for row in reader
        ]
    except csv.Error as error:  # such as a quotation mark that is never closed
        raise AnnotationError(f'{path}, line {reader.line_num}: {error}') from error


def read_json(path: Path, kind: type) -> list | dict:
    """A JSON file that holds a list or an object.

    Raises:
        AnnotationError: it holds something else.
    """
    try:
        value = json.loads(read_text(path))
    except ValueError as error:
        if isinstance(error, AnnotationError):
            raise
        raise AnnotationError(f'{path}: is not JSON ({error})') from error
    if not isinstance(value, kind):
        raise AnnotationError(
            f'{path}: should hold a {kind.__name__}, not a {type(value).__name__}'
        )
    return value


def class_at(names: Sequence[str], label: str | int, place: str, *, first: int = 0) -> str:
    """The class with a number.

    Args:
        names: of the classes.
        label: the number.
        place: for the message.
        first: number of the first class.

    Raises:
        AnnotationError: it is no number, or out of range.
    """
    last = first + len(names) - 1
    try:
        index = int(str(label))
    except ValueError:
        index = first - 1
    if not first <= index <= last:
        raise AnnotationError(f'{place}: label {label!r} is none of {first} … {last}')
    return names[index - first]


def ordered_names(path: Path, pairs: Iterable[tuple[str, str, str]], *, first: int = 0):
    """Class names in the order of their numbers, as a tuple.

    Args:
        path: their file, for the message.
        pairs: place, number and name of each class.
        first: number of the first class.

    Raises:
        AnnotationError: the numbers are not consecutive.
    """
    names = {}
    for place, number, name in pairs:
        if not number.isdecimal() or int(number) in names:
            raise AnnotationError(f'{place}: {number!r} is no number of a class, or stands twice')
        names[int(number)] = name
    if sorted(names) != list(range(first, first + len(names))) or not names:
        raise AnnotationError(
            f'{path}: the classes should be numbered {first}, {first + 1}, …; a number is missing'
        )
    return tuple(names[number] for number in sorted(names))
