"""Finding the mistakes in annotations before training starts."""

import collections
import difflib
import functools
import logging
import operator
import os
from collections.abc import Collection, Mapping, Sequence

from vivit_jax.annotations.annotation import (
    Annotation,
    AnnotationError,
    Annotations,
    find_group_column,
    split_labels,
)
from vivit_jax.annotations.dataset import PART_COLUMNS, Dataset, LabeledVideo, class_indices
from vivit_jax.errors import describe_closed, list_some
from vivit_jax.heads import LabelNames, PerHead, by_head, map_heads, numbered_labels, plain_name

_log = logging.getLogger(__name__)

_ONE_HEAD = {'label': 'label'}

_MOST_CLASSES = 1_000_000  # more are a column of something else than classes

# Types of the columns `PART_COLUMNS`.
_SECONDS, _FRAMES = (float, 'a number of seconds'), (int, 'a number of frames')
_PART_TYPES = (_SECONDS, _SECONDS, _FRAMES, _FRAMES)

_Labels = tuple[str, list[str]]  # place and labels of a line

_MOST_NAMED = 20  # missing videos that the log names


def check_annotations(
    annotations: Annotations,
    *,
    label_columns: Mapping[str, str] = _ONE_HEAD,
    label_names: PerHead[Sequence[str]] | None = None,
    num_classes: PerHead[int] | None = None,
    max_bad_fraction: float = 0.0,
    has_files: bool = True,
    label_separator: str = '',
) -> Dataset:
    """Checks the annotations of a dataset and turns their text into labelled videos.

    Args:
        annotations: from a reader.
        label_columns: for each head the column of its labels.
        label_names: the classes in order; by default, and if they are only numbers, the
            classes of the annotations, or else the sorted labels of the split `train`.
        num_classes: classes of the model; by default the number that was found.
        max_bad_fraction: fraction of a split's files that may be missing, see `most_bad`.
        has_files: whether videos are files, which must exist.
        label_separator: see `Dataset`.

    Raises:
        AnnotationError: see the checks below.
    """
    given_names = _of_heads('The list of classes', label_names, label_columns)
    given_sizes = _of_heads(f'model.num_classes={num_classes}', num_classes, label_columns)
    names, labels = {}, {}
    for head, column in label_columns.items():
        found = {
            split: _find_labels(split, lines, column, label_separator)
            for split, lines in annotations.splits.items()
        }
        given, ordered = given_names[head], annotations.label_names.get(column)
        if given is None:
            _check_similar(found.get('train', ()), column)
        # A model that knows only the number of its classes takes the names of the dataset.
        if given is None or (ordered and tuple(given) == numbered_labels(len(ordered))):
            given = ordered
        _check_separator(given or (), label_separator)
        names[head], indices = _read_labels(found, column, given, given_sizes[head])
        labels[head] = indices
        if not label_separator:
            labels[head] = {split: [label for (label,) in x] for split, x in indices.items()}
    names = _only_or_all(names)
    splits = {
        split: videos_of(
            lines,
            _only_or_all({head: labels[head][split] for head in labels}),
            find_group_column(lines, label_columns.values()),
        )
        for split, lines in annotations.splits.items()
    }
    _check_overlap(splits, label_separator)
    for split, videos in splits.items() if has_files else ():
        _check_files(split, videos, names, max_bad_fraction, annotations.expected.get(split))
    return Dataset(splits, names, annotations.expected, label_separator=label_separator)


def most_bad(num_videos: int, fraction: float) -> int:
    """How many videos of a split may be missing or broken, by `data.max_bad_fraction`.

    Up to five may be, if they are less than half of the split, or the fraction, if that is more.
    If the fraction is 0, none may be.
    """
    few = min(5, (num_videos - 1) // 2) if fraction else 0
    return max(few, int(fraction * num_videos))


def _of_heads(what: str, value: PerHead | None, heads: Collection[str]) -> dict[str, object]:
    if value is None:
        return dict.fromkeys(heads)
    if len(heads) == 1 and not isinstance(value, dict):
        return dict.fromkeys(heads, value)
    if len(heads) > 1 and isinstance(value, dict) and value.keys() == set(heads):
        return value
    found = f'the heads {", ".join(value)}' if isinstance(value, dict) else 'a single head'
    raise AnnotationError(
        f'{what} is for {found}, but data.label_columns names {", ".join(heads)}: they must agree'
    )


def _only_or_all(values: dict) -> PerHead:
    return values if len(values) > 1 else next(iter(values.values()))


def _find_labels(
    split: str, lines: Sequence[Annotation], column: str, separator: str
) -> list[_Labels]:
    """Place and labels of every line; with a separator some lines, but not all, may have none."""
    if not lines:
        raise AnnotationError(f'the split {split} is empty')
    found = [(x.place, split_labels(x.values.get(column, ''), separator)) for x in lines]
    without = [place for place, labels in found if not all(labels) or not labels]
    if without and not separator:
        raise AnnotationError(f'{without[0]}: no {column}')
    if len(without) == len(lines):
        raise AnnotationError(f'the split {split}: no video has a label in column {column!r}')
    return found


def _check_separator(label_names: Sequence[str], separator: str):
    """Names that could not be written into a cell and read again are an error."""
    broken = [x for x in label_names if separator and split_labels(x, separator) != [x]]
    if broken:
        raise AnnotationError(
            f'the class {broken[0]!r} has data.label_separator={separator!r} in its name: separate '
            'the labels of a video by something else'
        )


def _is_index(label: str) -> bool:
    return label.isascii() and label.isdigit()


def _read_labels(
    found: Mapping[str, Sequence[_Labels]],
    column: str,
    label_names: Sequence[str] | None,
    num_classes: int | None,
) -> tuple[tuple[str, ...], dict[str, list[tuple[int, ...]]]]:
    """The classes of a column, and of every split the class indices of each line."""
    every = [label for lines in found.values() for _, label in _each_label(lines)]
    are_indices = all(map(_is_index, every))
    if label_names is None:
        if 'train' not in found:
            raise AnnotationError('no class names: set data.train_csv or data.label_map')
        if are_indices:
            size = num_classes or min(max(map(int, every)) + 1, _MOST_CLASSES)
            _check_base(every, size, column)
            label_names = [str(i) for i in range(size)]
        else:
            label_names = sorted({label for _, label in _each_label(found['train'])})
    label_names = tuple(label_names)
    if len(set(label_names)) < len(label_names):
        twice = collections.Counter(label_names).most_common(1)[0][0]
        raise AnnotationError(f'column {column!r}: two classes have the name {twice!r}')
    if num_classes is not None and num_classes != len(label_names):
        raise AnnotationError(
            f'model.num_classes={num_classes}, but there are {len(label_names)} classes '
            f'({", ".join(label_names[:3])}, …) in column {column!r}; leave model.num_classes '
            'unset to follow the data'
        )
    to_index = {name: i for i, name in enumerate(label_names)}
    if are_indices and not all(map(_is_index, label_names)):
        _check_base(every, len(label_names), column)
        to_index = {str(i): i for i in range(len(label_names))}
    for lines in found.values():
        _check_known(lines, column, to_index)
    indices = {
        split: [tuple(sorted(to_index[label] for label in labels)) for _, labels in lines]
        for split, lines in found.items()
    }
    if 'train' in indices:
        _check_classes(column, label_names, indices['train'])
    return label_names, indices


def _check_similar(lines: Sequence[_Labels], column: str):
    first = {}
    for place, label in _each_label(lines):
        other = first.setdefault(plain_name(label), label)
        if label != other:
            raise AnnotationError(
                f'{place}: {column} {label!r} and {other!r} differ in case or blanks only, '
                'and would be two classes: write one name for both'
            )


def _check_base(labels: Sequence[str], num_classes: int, column: str):
    indices = list(map(int, labels))
    lowest, highest = min(indices), max(indices)
    if lowest == 1 and highest in (num_classes, num_classes - 1):
        raise AnnotationError(
            f'column {column!r}: labels run from 1 to {highest} and look 1-based; classes count '
            'from 0: subtract 1 from every label, or write class names'
        )
    if highest >= num_classes:
        raise AnnotationError(
            f'column {column!r}: label {highest} is out of range: with {num_classes} classes '
            f'labels are 0 … {num_classes - 1}'
        )


def _each_label(lines: Sequence[_Labels]) -> list[tuple[str, str]]:
    return [(place, label) for place, labels in lines for label in labels]


def _check_known(lines: Sequence[_Labels], column: str, to_index: Mapping[str, int]):
    every = _each_label(lines)
    unknown = [(place, label) for place, label in every if label not in to_index]
    if not unknown:
        return
    labels = [label for _, label in every]
    if all(map(_is_index, labels)):
        _check_base(labels, len(to_index), column)
    place, label = unknown[0]
    near = difflib.get_close_matches(label, to_index, n=1)
    raise AnnotationError(
        f'{place}: {column} {label!r} is none of the {len(to_index)} classes'
        f'{f"; did you mean {near[0]!r}?" if near else ""} '
        f'({len(unknown)} of {len(every)} labels are unknown)'
    )


def _check_classes(column: str, label_names: Sequence[str], labels: Sequence[tuple[int, ...]]):
    counts = collections.Counter(index for of_line in labels for index in of_line)
    absent = [name for i, name in enumerate(label_names) if not counts[i]]
    if absent:
        _log.warning(
            'column %r: %d classes have no training video: %s',
            column,
            len(absent),
            list_some(absent),
        )
    few = [f'{name} ({counts[i]})' for i, name in enumerate(label_names) if 0 < counts[i] < 3]
    if few:
        _log.warning(
            'column %r: classes with only one or two training videos, too few to learn from: %s',
            column,
            list_some(few),
        )


def videos_of(
    lines: Sequence[Annotation], labels: PerHead[Sequence], group_column: str | None
) -> list[LabeledVideo]:
    """Turns the text of lines into videos.

    Args:
        lines: of a list.
        labels: of each line, of each head, see `LabeledVideo`.
        group_column: the column that says which videos belong together.

    Raises:
        AnnotationError: a number is none, or a part of a video is impossible.
    """
    videos = []
    for index, (place, values) in enumerate(lines):
        start, end, first, count = (
            _number(place, values, name, kind, what)
            for name, (kind, what) in zip(PART_COLUMNS, _PART_TYPES, strict=True)
        )
        if end is not None and end <= (start or 0):
            raise AnnotationError(f'{place}: end_sec={end} does not lie after start_sec={start}')
        if (first or 0) < 0 or (count is not None and count < 1):
            raise AnnotationError(f'{place}: start_frame={first}, num_frames={count} is no part')
        label = map_heads(operator.itemgetter(index), labels)
        group = values.get(group_column) or None
        depth = values.get('depth_path') or None
        videos.append(
            LabeledVideo(values['video_path'], label, start, end, first, count, depth, group)
        )
    return videos


def _number(place: str, values: Mapping[str, str], column: str, kind: type, what: str):
    try:
        return kind(values[column]) if values.get(column) else None
    except ValueError:
        raise AnnotationError(f'{place}: {column}={values[column]!r} is not {what}') from None


def _check_overlap(splits: Mapping[str, Sequence[LabeledVideo]], label_separator: str):
    real_path = functools.cache(os.path.realpath)  # a video may have thousands of parts

    def key(video: LabeledVideo) -> tuple:
        part = video.start_sec, video.end_sec, video.start_frame, video.num_frames
        return real_path(video.video_path), *part

    keys = {split: [key(video) for video in videos] for split, videos in splits.items()}
    for split, videos in splits.items():
        labels = collections.defaultdict(list)
        for name, video in zip(keys[split], videos, strict=True):
            if video.label not in labels[name]:
                labels[name].append(video.label)
        twice = [name[0] for name, found in labels.items() if len(found) > 1]
        if twice and label_separator:
            raise AnnotationError(
                f'{split}: {len(twice)} videos are listed several times with different labels, '
                f'such as {twice[0]}: with data.label_separator={label_separator!r} all labels of '
                'a video stand in one cell of one line'
            )
        if twice:
            _log.warning(
                '%s: %d videos are listed with several labels, such as %s',
                split,
                len(twice),
                twice[0],
            )
    train = set(keys.get('train', ()))
    for split in splits.keys() - {'train'}:
        videos = zip(keys[split], splits[split], strict=True)
        shared = [video.video_path for name, video in videos if name in train]
        if shared:
            raise AnnotationError(
                f'{len(shared)} videos are in both train and {split}: {list_some(shared)}; '
                'accuracy on videos seen in training means nothing: remove them from one of the two'
            )


def _check_files(
    split: str,
    videos: Sequence[LabeledVideo],
    label_names: LabelNames,
    max_bad_fraction: float,
    expected: str | None,
):
    exists = functools.cache(os.path.exists)

    def find_missing(video: LabeledVideo) -> str | None:
        paths = video.video_path, video.depth_path
        return next((path for path in paths if path is not None and not exists(path)), None)

    lost_paths = {index: path for index, path in enumerate(map(find_missing, videos)) if path}
    missing = [videos[index] for index in lost_paths]
    found = len(videos) - len(missing)
    known = f' ({expected})' if expected else ''
    _log.info('%s: %s videos listed, %s found%s', split, f'{len(videos):,}', f'{found:,}', known)
    if not missing:
        return
    by_class, loses_class = [], False
    for head, names in by_head(label_names).items():
        listed, lost = (
            collections.Counter(
                names[index]
                for video in some
                for index in class_indices(by_head(video.label)[head])
            )
            for some in (videos, missing)
        )
        counts = [f'{name} {count} of {listed[name]}' for name, count in lost.most_common()]
        by_class.append(f'by {head or "class"}: {list_some(counts)}')
        loses_class |= any(count == listed[name] for name, count in lost.items())
    message = (
        f'{len(missing)} of {len(videos)} videos of the {split} split do not exist '
        f'({"; ".join(by_class)})'
    )
    allowed = most_bad(len(videos), max_bad_fraction)
    if split == 'train' and loses_class:  # a folder may have another name
        allowed = int(max_bad_fraction * len(videos))
    if len(missing) > allowed:
        first = next(iter(lost_paths.values()))
        go_on = f'; raise data.max_bad_fraction={max_bad_fraction} to go on without them'
        raise AnnotationError(
            f'{message}, such as {first}{describe_closed(first)}. Paths are relative to '
            f'data.root, or to the folder of the CSV{go_on if found else ""}'
        )
    named = [*lost_paths.values()][:_MOST_NAMED]
    named += ['…'] if len(missing) > _MOST_NAMED else []
    _log.warning(
        '%s. Training replaces them by others, and an evaluation counts them as wrong:\n  %s',
        message,
        '\n  '.join(named),
    )
