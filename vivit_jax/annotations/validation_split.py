"""A validation split that is drawn from the training list, and its lists in the run folder."""

import collections
import csv
import dataclasses
import functools
import io
import logging
import os
import random
from collections.abc import Sequence
from pathlib import Path

from vivit_jax.annotations.annotation import (
    Annotation,
    AnnotationError,
    Annotations,
    find_group_column,
    split_labels,
)
from vivit_jax.annotations.csv_text import videos_csv
from vivit_jax.annotations.dataset import Dataset
from vivit_jax.errors import UserError, list_some
from vivit_jax.heads import by_head

_log = logging.getLogger(__name__)

_NUM_ORDERS = 20  # orders of the groups that are tried
_MOST_CLASSES = 10  # whose counts the log has


def draw_validation(
    annotations: Annotations,
    fraction: float,
    seed: int,
    label_columns: Sequence[str],
    label_separator: str = '',
) -> Annotations:
    """Moves a part of the split `train` to a new split `val`.

    Each class gives this part of its videos, rounded: at least one video if the class has two, and
    never all of them. Of several columns of labels the first one counts. Parts of one video stay
    together, and so do all videos with the same value in a column `group` or `subject`; then
    classes give their part as nearly as whole groups allow. So do they if videos have any number of
    labels; videos without a label count as a class. The same videos and seed give the same split,
    in whatever order and folder the videos are.

    Args:
        annotations: with a split `train`, and without `val`.
        fraction: more than 0, and less than 1.
        seed: of the draw.
        label_columns: the columns of labels.
        label_separator: see `Dataset`.

    Raises:
        AnnotationError: a video has no group or two groups, or the groups are too few.
        UserError: there is no training list, or there is a validation split already.
    """
    if 'train' not in annotations.splits:
        raise UserError(
            f'data.val_fraction={fraction} needs training videos to draw from: set data.train_csv'
        )
    if 'val' in annotations.splits:
        raise UserError(
            f'data.val_fraction={fraction} draws a validation split, but the dataset has one, '
            'or data.val_csv names it: leave out one of the two'
        )
    train = annotations.splits['train']
    column = find_group_column(train, label_columns)
    groups = _find_groups(train, column)
    labels = [_labels(group, label_columns[0], label_separator) for group in groups]
    drawn = _draw(labels, fraction, random.Random(seed))
    if not drawn:
        in_groups = (
            f', in {len(groups)} groups by the column {column!r}, the smallest of '
            f'{min(map(len, groups))} videos,'
            if column
            else ''
        )
        raise AnnotationError(
            f'data.val_fraction={fraction}: the {len(train)} training videos{in_groups} give no '
            'validation split that comes near this part and leaves every class a training video. '
            'Give another fraction, or write the lists data.train_csv and data.val_csv yourself'
        )
    val = {id(line) for index in drawn for line in groups[index]}
    splits = {
        'train': [line for line in train if id(line) not in val],
        'val': [line for line in train if id(line) in val],
    }
    by_group = f", {len(drawn)} of {len(groups)} groups by the column '{column}'" if column else ''
    _log.info(
        'val: %d of %d training videos, drawn by data.val_fraction=%s and seed=%d%s; %s',
        len(splits['val']),
        len(train),
        fraction,
        seed,
        by_group,
        _describe_classes(
            *(_labels(lines, label_columns[0], label_separator) for lines in (splits['val'], train))
        ),
    )
    return dataclasses.replace(
        annotations,
        splits={**annotations.splits, **splits},
        expected={split: x for split, x in annotations.expected.items() if split not in splits},
    )


def _labels(lines: Sequence[Annotation], column: str, separator: str) -> list[str]:
    """The labels of all lines; '' stands for a line without."""
    cells = [line.values.get(column, '') for line in lines]
    return [label for cell in cells for label in split_labels(cell, separator) or ['']]


def _find_groups(lines: Sequence[Annotation], column: str | None) -> list[list[Annotation]]:
    """The lines that must stay in one split, in an order that does not depend on theirs."""
    real_path = functools.cache(os.path.realpath)
    groups, group_of = collections.defaultdict(list), {}
    for line in sorted(lines, key=lambda x: (x.values['video_path'], sorted(x.values.items()))):
        path = real_path(line.values['video_path'])
        group = line.values.get(column) if column else path
        if not group:
            raise AnnotationError(
                f'{line.place}: no {column}: data.val_fraction keeps the videos of a {column} '
                'together, and needs it for every training video'
            )
        other = group_of.setdefault(path, group)
        if other != group:
            raise AnnotationError(
                f'{line.place}: {path} has the {column} {group!r} here and {other!r} elsewhere: '
                'data.val_fraction needs one for all parts of a video'
            )
        groups[group].append(line)
    return list(groups.values())


def _draw(labels: Sequence[Sequence[str]], fraction: float, rng: random.Random) -> list[int]:
    """The groups of the validation split.

    Groups are taken in a random order if they bring the counts of the classes nearer to what is
    wanted. Of several orders the one that comes nearest wins; groups of one video each reach the
    wanted counts in the first order.

    Args:
        labels: of all videos of each group.
        fraction: of the videos of each class that is wanted.
        rng: gives the orders.
    """
    counts = [collections.Counter(of_group) for of_group in labels]
    sizes = collections.Counter(label for of_group in labels for label in of_group)
    wanted = {x: min(max(1, round(fraction * size)), size - 1) for x, size in sizes.items()}
    best, smallest = [], sum(wanted.values())
    for _ in range(_NUM_ORDERS):
        # random() is the part of the module that stays the same in all versions of Python.
        order = sorted(range(len(counts)), key=lambda _: rng.random())
        drawn, missing = [], dict(wanted)
        for index in order:
            count = counts[index].items()
            leaves_all = all(sizes[x] - wanted[x] + missing[x] > n for x, n in count)
            gain = sum(abs(missing[x]) - abs(missing[x] - n) for x, n in count)
            if leaves_all and gain > 0:
                drawn.append(index)
                missing |= {x: missing[x] - n for x, n in count}
        distance = sum(map(abs, missing.values()))
        if distance < smallest:
            best, smallest = drawn, distance
        if not smallest:
            break
    return best


def _describe_classes(val: Sequence[str], train: Sequence[str]) -> str:
    """How many of the labels of each class were drawn."""
    drawn, listed = collections.Counter(val), collections.Counter(train)
    counts = [
        f'{name or "no label"} {drawn[name]} of {size}' for name, size in sorted(listed.items())
    ]
    if len(counts) <= _MOST_CLASSES:
        return ', '.join(counts)
    without = sorted(listed.keys() - drawn.keys())
    return f'of {len(drawn)} of {len(listed)} classes' + (
        f', not of {list_some(without)}' if without else ''
    )


def drawn_lists(dataset: Dataset, label_columns: Sequence[str]) -> dict[str, str]:
    """For a drawn split the CSVs `train_videos.csv` and `val_videos.csv`; otherwise none.

    Args:
        dataset: its splits are sources of videos.
        label_columns: the column of the labels of each head.
    """
    if not dataset.val_is_drawn:
        return {}
    classes = dict(zip(label_columns, by_head(dataset.label_names).values(), strict=True))
    return {
        f'{split}_videos.csv': videos_csv(
            dataset.splits[split].videos, classes, dataset.label_separator
        )
        for split in ('train', 'val')
        if split in dataset.splits
    }


def check_drawn_lists(folder: Path, dataset: Dataset, label_columns: Sequence[str]):
    """Checks that a split is drawn as it was when a run began; the videos may have moved.

    Args:
        folder: the run folder; any other folder is accepted.
        dataset: its splits are sources of videos.
        label_columns: the column of the labels of each head.

    Raises:
        UserError: the split has other videos than the lists in the folder.
    """
    for name, text in drawn_lists(dataset, label_columns).items():
        path = folder / name
        if not path.exists():
            if not (folder / 'config.json').exists() or not (folder / 'checkpoints').is_dir():
                continue
            raise UserError(
                'data.val_fraction draws a validation split, but no split was drawn when the run '
                f'{folder} began, and the run may have trained on its videos: set '
                'data.val_fraction=0, and data.val_csv or data.test_csv to other videos'
            )
        old, new = _without_folder(path.read_text('utf-8')), _without_folder(text)
        if old != new:
            raise UserError(
                f'the {len(old)} videos of {path} no longer come out: {len(old - new)} of them '
                f'are missing, and {len(new - old)} are new. The training videos, their labels, '
                'data.val_fraction or the seed have changed since the run began. Restore them, '
                'or leave out data.val_fraction and name the lists of the run: '
                f'--config.data.train_csv={folder}/train_videos.csv '
                f'--config.data.val_csv={folder}/val_videos.csv (to train, in a new --workdir)'
            )


def _without_folder(text: str) -> set[tuple[str, ...]]:
    """The lines of a native CSV, with paths that start at the folder that all share."""
    rows = list(csv.DictReader(io.StringIO(text, newline='')))
    root = os.path.commonpath([os.path.dirname(row['video_path']) for row in rows])
    for row in rows:
        row.pop('depth_path', None)  # the path of the video says which depth it has
    return {(os.path.relpath(row.pop('video_path'), root), *row.values()) for row in rows}
