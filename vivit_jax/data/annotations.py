"""Lists of labelled videos: reading them, and finding their mistakes before training starts."""

import collections
import csv
import dataclasses
import difflib
import io
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from vivit_jax.errors import UserError

_log = logging.getLogger(__name__)


class AnnotationError(UserError):
    """A list of videos cannot be used; the message says which, where, and what to do."""


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One labelled video, or one labelled part of a video.

    Attributes:
        video_path: file to decode.
        label: index of the class.
        start_sec, end_sec: the part; None where the list gives none.
    """

    video_path: str
    label: int
    start_sec: float | None = None
    end_sec: float | None = None


@dataclasses.dataclass(frozen=True)
class Annotations:
    """The splits of a dataset, by name, and the class names in the order of the labels."""

    splits: Mapping[str, Sequence[Row]]
    label_names: tuple[str, ...]


def load_annotations(
    csv_files: Mapping[str, str],
    *,
    root: str = '',
    label_names: Sequence[str] | None = None,
    num_classes: int | None = None,
    max_bad_fraction: float = 0.0,
) -> Annotations:
    """Reads and checks the CSV files of a dataset.

    A file has a header with `video_path` and `label`, optionally `start_sec` and `end_sec`. Labels
    are names, or class indices from 0 where every one is a whole number.

    Args:
        csv_files: split name to CSV file.
        root: folder of the video paths; by default each CSV's own.
        label_names: the classes in order; by default the sorted labels of the split `train`.
        num_classes: classes that the model has; by default as many as found.
        max_bad_fraction: part of a split's files that may be missing.

    Raises:
        AnnotationError: see the checks below.
    """
    tables = {split: _read_csv(Path(path), root) for split, path in csv_files.items()}
    is_index = all(_is_index(row['label']) for rows in tables.values() for row in rows)
    if label_names is None:
        if 'train' not in tables:
            raise AnnotationError('no class names: set data.train_csv or data.label_map')
        found = {row['label'] for row in tables['train']}
        if is_index:
            highest = max(int(row['label']) for rows in tables.values() for row in rows)
            _check_base(tables, num_classes or highest + 1)
            label_names = [str(i) for i in range(num_classes or highest + 1)]
        else:
            label_names = sorted(found)
    label_names = tuple(label_names)
    if num_classes and num_classes != len(label_names):
        raise AnnotationError(
            f'model.num_classes={num_classes}, but there are {len(label_names)} classes '
            f'({", ".join(label_names[:3])}, …); leave model.num_classes unset to follow the data'
        )
    to_index = {name: i for i, name in enumerate(label_names)}
    if is_index and not all(_is_index(name) for name in label_names):
        to_index = {str(i): i for i in range(len(label_names))}
    splits = {split: _rows_of(rows, csv_files[split], to_index) for split, rows in tables.items()}
    _check_classes(splits.get('train', ()), label_names)
    _check_overlap(splits)
    for split, rows in splits.items():
        _check_files(split, rows, label_names, max_bad_fraction)
    return Annotations(splits, label_names)


def read_label_map(path: str | os.PathLike) -> tuple[str, ...]:
    """Class names, one a line, in the order of their indices."""
    try:
        lines = Path(path).read_text(encoding='utf-8-sig').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, 'strerror', None) or error
        raise AnnotationError(f'label map {path}: {reason}') from error
    names = tuple(line.strip() for line in lines if line.strip())
    twice = [name for name, count in collections.Counter(names).items() if count > 1]
    if twice or not names:
        raise AnnotationError(f'label map {path}: ' + (f'{twice} twice' if twice else 'is empty'))
    return names


def _read_csv(path: Path, root: str) -> list[dict[str, str]]:
    if not path.is_file():
        raise AnnotationError(
            f'no annotation file at {path.absolute()}. It should be a CSV with the header '
            '"video_path,label" and a line per video, paths relative to its own folder or to '
            'data.root. To see a config run without its data, add ":runlocal" to --config.'
        )
    try:
        text = path.read_text(encoding='utf-8-sig')
    except UnicodeDecodeError as error:
        raise AnnotationError(f'{path}: is not in UTF-8 ({error})') from error
    reader = csv.DictReader(io.StringIO(text))
    reader.fieldnames = columns = [name.strip() for name in reader.fieldnames or []]
    missing = [name for name in ('video_path', 'label') if name not in columns]
    if missing:
        raise AnnotationError(f'{path}: no column {missing}; the header has {columns}')
    rows = []
    for row in reader:
        row = {key: (value or '').strip() for key, value in row.items() if key}
        if not row['video_path'] or not row['label']:
            raise AnnotationError(f'{path}, line {reader.line_num}: no video_path or no label')
        row['video_path'] = os.path.join(root or path.parent, row['video_path'])
        row['line'] = reader.line_num
        rows.append(row)
    if not rows:
        raise AnnotationError(f'{path}: the split is empty: it has a header and no videos')
    return rows


def _is_index(label: str) -> bool:
    return label.isascii() and label.isdigit()


def _check_base(tables: Mapping[str, list[dict]], num_classes: int):
    lowest = min(int(row['label']) for rows in tables.values() for row in rows)
    highest = max(int(row['label']) for rows in tables.values() for row in rows)
    if lowest == 1 and highest in (num_classes, num_classes - 1):
        raise AnnotationError(
            f'labels run from 1 to {highest} and look 1-based; classes count from 0: subtract 1 '
            'from every label, or write class names'
        )
    if highest >= num_classes:
        raise AnnotationError(
            f'label {highest} is out of range: with {num_classes} classes labels are '
            f'0 … {num_classes - 1}'
        )


def _rows_of(table: list[dict], path: str, to_index: Mapping[str, int]) -> list[Row]:
    unknown = [row for row in table if row['label'] not in to_index]
    if unknown:
        first = unknown[0]
        if all(_is_index(row['label']) for row in table):
            _check_base({path: table}, len(to_index))
        near = difflib.get_close_matches(first['label'], to_index, n=1)
        raise AnnotationError(
            f'{path}, line {first["line"]}: label {first["label"]!r} is none of the '
            f'{len(to_index)} classes{f"; did you mean {near[0]!r}?" if near else ""} '
            f'({len(unknown)} of {len(table)} lines have such labels)'
        )

    def second(row: dict, column: str) -> float | None:
        try:
            return float(row[column]) if row.get(column) else None
        except ValueError:
            raise AnnotationError(
                f'{path}, line {row["line"]}: {column}={row[column]!r} is not a number of seconds'
            ) from None

    rows = []
    for row in table:
        start, end = second(row, 'start_sec'), second(row, 'end_sec')
        if end is not None and end <= (start or 0):
            raise AnnotationError(
                f'{path}, line {row["line"]}: end_sec={end} does not lie after start_sec={start}'
            )
        rows.append(Row(row['video_path'], to_index[row['label']], start, end))
    return rows


def _check_classes(rows: Sequence[Row], label_names: Sequence[str]):
    absent = set(range(len(label_names))) - {row.label for row in rows}
    if rows and absent:
        names = [label_names[i] for i in sorted(absent)]
        _log.warning('%d classes have no training video: %s', len(names), _some(names))


def _check_overlap(splits: Mapping[str, Sequence[Row]]):
    def key(row: Row) -> tuple:
        return os.path.realpath(row.video_path), row.start_sec, row.end_sec

    train = {key(row) for row in splits.get('train', ())}
    for split in splits.keys() - {'train'}:
        shared = [row.video_path for row in splits[split] if key(row) in train]
        if shared:
            raise AnnotationError(
                f'{len(shared)} videos are in both train and {split}: {_some(shared)}; accuracy '
                'on videos seen in training means nothing: remove them from one of the two'
            )


def _check_files(
    split: str, rows: Sequence[Row], label_names: Sequence[str], max_bad_fraction: float
):
    missing = [row for row in rows if not os.path.exists(row.video_path)]
    if not missing:
        return
    counts = collections.Counter(label_names[row.label] for row in missing)
    message = (
        f'{len(missing)} of {len(rows)} videos of the {split} split do not exist, such as '
        f'{missing[0].video_path}; by class: {_some([f"{k} {n}" for k, n in counts.most_common()])}'
    )
    if len(missing) > max_bad_fraction * len(rows):
        raise AnnotationError(
            f'{message}. Paths are relative to data.root, or to the folder of the CSV; raise '
            f'data.max_bad_fraction={max_bad_fraction} to go on without them'
        )
    _log.warning('%s', message)


def _some(items: Sequence[str], most: int = 5) -> str:
    return ', '.join(items[:most]) + (f', … ({len(items)} in all)' if len(items) > most else '')
