"""Which videos of a dataset can be used: each is opened, and three of its frames are decoded."""

import collections
import csv
import functools
import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from vivit_jax.annotations.csv_text import csv_text, label_texts, videos_csv
from vivit_jax.annotations.dataset import PART_COLUMNS, Dataset, LabeledVideo, class_indices
from vivit_jax.atomic_files import replace_text
from vivit_jax.batches.sources import VideoFiles, VideoSource
from vivit_jax.errors import UserError
from vivit_jax.heads import by_head
from vivit_jax.prepare.workers import Died, run_tasks
from vivit_jax.video.frame_reader import VideoError
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.video.sampling import clip_span

# A video is known by the first two, and unchanged while the next two are what they were.
_FIELDS = (
    'video_path',
    'part',
    'bytes',
    'mtime_ns',
    'status',
    'frames',
    'seconds',
    'fps',
    'width',
    'height',
    'reason',
)
_key = operator.itemgetter('video_path', 'part')
_stamp = operator.itemgetter('bytes', 'mtime_ns')
_NO_FILE = ('', '')

_USABLE = ('ok', 'short')
_LISTED = ('short', 'corrupt', 'missing')
_MOST_CLASSES = 5  # printed, of the classes that lose videos

_Line = dict[str, str]  # of checked.csv


def check(
    videos: Dataset,
    spec: Preprocessing,
    output: Path,
    *,
    label_columns: Sequence[str],
    num_workers: int,
):
    """Checks every video, writes what was found into a folder, and prints a summary.

    `checked.csv` grows with each video; a later call goes on from it, and repeats only what has
    changed. The others are written at the end: `<split>_ok.csv` with all that can be used,
    `label_map.txt` with the classes in their order, `short.csv`, `corrupt.csv`, `missing.csv` and
    `classes.csv`.

    Args:
        videos: the splits.
        spec: videos that its clips do not fit into are listed as short. They can be used.
        output: the folder.
        label_columns: the column of the labels of each head.
        num_workers: processes.

    Raises:
        UserError: the videos are no files.
    """
    if not all(isinstance(source, VideoFiles) for source in videos.splits.values()):
        raise UserError('these videos are records: python -m vivit_jax.prepare records checks them')
    output.mkdir(parents=True, exist_ok=True)
    needed = _needed_frames(spec)
    found = _check_all(videos, output / 'checked.csv', needed, num_workers)
    names = dict(zip(label_columns, by_head(videos.label_names).values(), strict=True))
    for head, classes in by_head(videos.label_names).items():
        file = f'label_map_{head}.txt' if head else 'label_map.txt'
        replace_text(output / file, ''.join(f'{name}\n' for name in classes))
    separator = videos.label_separator
    listed, counts = {status: [] for status in _LISTED}, []
    for split, source in videos.splits.items():
        lines = [found[row.video_path, _part(row)] for row in source.videos]
        usable = [
            row for row, line in zip(source.videos, lines, strict=True) if line['status'] in _USABLE
        ]
        replace_text(output / f'{split}_ok.csv', videos_csv(usable, names, separator))
        for line, row in zip(lines, source.videos, strict=True):
            if line['status'] in listed:
                reason = line['reason'] or f'{line["frames"]} frames, a clip needs {needed}'
                label = label_texts(row, names, separator)
                listed[line['status']].append((split, *_key(line), *label, reason))
        of_split = _count_classes(lines, source.videos, names)
        counts += [(split, *place, *count.values()) for place, count in of_split.items()]
        print(_summary(split, lines, of_split, videos.expected.get(split)))
    for status, rows in listed.items():
        header = ('split', 'video_path', 'part', *names, 'reason')
        replace_text(output / f'{status}.csv', csv_text(header, rows))
    header = ('split', 'column', 'class', 'listed', 'found', 'ok', 'short')
    replace_text(output / 'classes.csv', csv_text(header, counts))
    for path in output.glob('*_ok.csv'):
        if path.name.removesuffix('_ok.csv') not in videos.splits:
            print(f'{path} is of an earlier check, of another split or another dataset')


def _check_all(
    videos: Dataset, path: Path, needed: int, num_workers: int
) -> dict[tuple[str, str], _Line]:
    """What is known of every video, from before or from now."""
    entries = {
        (row.video_path, _part(row)): (split, index)
        for split, source in videos.splits.items()
        for index, row in enumerate(source.videos)
    }
    stamps = {file: _stamp_of(file) for file in {file for file, _ in entries}}
    known = {}
    for line in _read_checked(path):
        key = _key(line)
        if key not in entries or _stamp(line) == stamps[key[0]] != _NO_FILE:
            known[key] = line | {'status': _status(line, needed)}
    for key in entries:
        if stamps[key[0]] == _NO_FILE:
            known[key] = _line(key, _NO_FILE, {'reason': 'no such file'}, needed)
    waiting = [key for key in entries if key not in known]
    replace_text(path, csv_text(_FIELDS, (line.values() for line in known.values())))
    probe = functools.partial(_probe, videos.splits)
    results = run_tasks(probe, [entries[key] for key in waiting], num_workers)
    with path.open('a', newline='', encoding='utf-8', buffering=1) as file:
        writer = csv.writer(file, lineterminator='\n')
        for place, result in tqdm(results, 'checking', len(waiting), unit='video', disable=None):
            key = waiting[place]
            facts = {'reason': str(result)} if isinstance(result, Died) else result
            known[key] = _line(key, stamps[key[0]], facts, needed)
            writer.writerow(known[key].values())
    return known


def _probe(
    splits: Mapping[str, VideoSource], place: tuple[str, int]
) -> Iterator[Mapping[str, object]]:
    """Opens a video and decodes its first, middle and last frame."""
    split, index = place
    source = splits[split]
    try:
        with source.open(index) as video:
            count = len(video)
            clips = video.read([0, count // 2, count - 1])
            _, height, width, _ = next(iter(clips.values())).shape
            times = video.main.timestamps_sec
    except Exception as error:  # nothing that a damaged file does may end the check
        text = str(error) if isinstance(error, VideoError) else repr(error)
        reason = text.removeprefix(f'{source.videos[index].video_path}: ')
        yield {'reason': ' '.join(reason.split())}
        return
    facts = {'frames': count, 'width': width, 'height': height}
    if times[-1] > times[0]:
        fps = (count - 1) / (times[-1] - times[0])
        facts |= {'seconds': f'{count / fps:.3f}', 'fps': f'{fps:.3f}'}
    yield facts


def _line(
    key: tuple[str, str], stamp: tuple[str, str], facts: Mapping[str, object], needed: int
) -> _Line:
    line = dict.fromkeys(_FIELDS, '') | dict(zip(_FIELDS, (*key, *stamp), strict=False))
    line |= {name: str(value) for name, value in facts.items()}
    return line | {'status': _status(line, needed)}


def _status(line: _Line, needed: int) -> str:
    if _stamp(line) == _NO_FILE:
        return 'missing'
    if line['reason']:
        return 'corrupt'
    return 'short' if int(line['frames']) < needed else 'ok'


def _read_checked(path: Path) -> list[_Line]:
    if not path.exists():
        return []
    text = path.read_text(encoding='utf-8')
    whole = text[: text.rfind('\n') + 1]  # a call that was killed may leave part of a line
    lines = list(csv.DictReader(whole.splitlines()))
    return [line for line in lines if tuple(line) == _FIELDS]


def _stamp_of(file: str) -> tuple[str, str]:
    try:
        found = os.stat(file)
    except OSError:
        return _NO_FILE
    return str(found.st_size), str(found.st_mtime_ns)


def _part(row: LabeledVideo) -> str:
    values = {name: getattr(row, name) for name in PART_COLUMNS}
    return ' '.join(f'{name}={value}' for name, value in values.items() if value is not None)


def _needed_frames(spec: Preprocessing) -> int:
    if spec.sampling == 'segments' or spec.short_video == 'smaller_stride':
        return spec.num_units * spec.num_frames
    return spec.num_units * clip_span(spec)


def _count_classes(
    lines: Sequence[_Line], videos: Sequence[LabeledVideo], names: Mapping[str, Sequence[str]]
) -> dict[tuple[str, str], dict[str, int]]:
    """How many videos each class of each column has."""
    counts = {
        (column, name): {'listed': 0, 'found': 0, 'ok': 0, 'short': 0}
        for column, classes in names.items()
        for name in classes
    }
    for line, video in zip(lines, videos, strict=True):
        labels = zip(names, by_head(video.label).values(), strict=True)
        for column, index in ((x, index) for x, label in labels for index in class_indices(label)):
            count = counts[column, names[column][index]]
            count['listed'] += 1
            count['found'] += line['status'] != 'missing'
            if line['status'] in _USABLE:
                count[line['status']] += 1
    return counts


def _summary(
    split: str,
    lines: Sequence[_Line],
    counts: Mapping[tuple[str, str], Mapping[str, int]],
    published: str | None,
) -> str:
    of_status = collections.Counter(line['status'] for line in lines)
    known = f' ({published})' if published else ''
    text = (
        f'{split}: {len(lines):,} listed{known}, {len(lines) - of_status["missing"]:,} found: '
        f'{of_status["ok"]:,} ok, {of_status["short"]:,} short, {of_status["corrupt"]:,} corrupt; '
        f'{of_status["missing"]:,} missing'
    )
    lost = {
        place: count['listed'] - count['ok'] - count['short'] for place, count in counts.items()
    }
    worst = sorted(filter(lost.get, lost), key=lost.get, reverse=True)
    if worst:
        shown = [
            f'{name} {lost[column, name]} of {counts[column, name]["listed"]}'
            for column, name in worst[:_MOST_CLASSES]
        ]
        text += f'\n  classes that lose most: {", ".join(shown)}'
    return text
