"""Annotation files: finding them, and reading lists, tables, JSON and class names."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vivit_jax.annotations.annotation import AnnotationError

SPLIT_NAMES = {
    'train': ('train', 'training'),
    'val': ('val', 'validation', 'validate', 'valid'),
    'test': ('test', 'testing'),
}


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
    path: Path, needed: Sequence[str] = (), hint: str = '', separator: str = ','
) -> list[tuple[str, dict[str, str]]]:
    """Place and values, by column, of the rows of a CSV file with a header.

    Raises:
        AnnotationError: it has no such columns; the message ends in `hint`.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=''), delimiter=separator)
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
