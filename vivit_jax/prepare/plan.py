"""The plan of packing: which videos go into which shard; refuses a folder of another plan."""

import collections
import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from vivit_jax.annotations.dataset import Dataset, LabeledVideo
from vivit_jax.atomic_files import replace_text
from vivit_jax.batches.array_record import ArrayRecords
from vivit_jax.batches.sources import VideoFiles, VideoSource
from vivit_jax.errors import UserError
from vivit_jax.heads import by_head
from vivit_jax.prepare.encode import Encoding
from vivit_jax.prepare.shards import Shard

_VERSION = '1.0.0'
_SHARD_BYTES = 2**29  # at most, about, by default


@dataclasses.dataclass(frozen=True)
class Plan:
    """The shards of a dataset.

    Attributes:
        folder: of the version: `<output>/<name>/1.0.0`.
        name: of the dataset.
        sources: the videos of each split.
        classes: the names of the classes of each column of labels.
        encoding: of the videos.
        shards: of the splits that are to be packed, or were packed before.
        wanted: the splits that are to be packed.
        label_separator: see `Dataset`.
    """

    folder: Path
    name: str
    sources: Mapping[str, VideoSource]
    classes: Mapping[str, tuple[str, ...]]
    encoding: Encoding
    shards: Mapping[str, tuple[Shard, ...]]
    wanted: tuple[str, ...]
    label_separator: str


def make_plan(
    videos: Dataset,
    output: Path,
    *,
    name: str,
    encoding: Encoding,
    label_columns: Sequence[str],
    split: str | None = None,
    num_shards: int | None = None,
) -> Plan:
    """Cuts the splits into shards, and keeps the settings in the folder.

    Args:
        videos: all splits.
        output: folder of datasets.
        name: of the dataset.
        encoding: of the videos.
        label_columns: the column of the labels of each head.
        split: the only one that is wanted; by default all are.
        num_shards: of each split; by default by the bytes of its files.

    Raises:
        UserError: the folder was made with other settings, videos are listed twice, or the videos
            are records already.
    """
    sources = videos.splits
    if not encoding.is_new and any(isinstance(source, ArrayRecords) for source in sources.values()):
        raise UserError('these videos are records already; --short_side or --gop encode them anew')
    classes = dict(zip(label_columns, by_head(videos.label_names).values(), strict=True))
    if {'id', 'video'} & set(classes):
        raise UserError(f'data.label_columns={tuple(classes)}: records use id and video themselves')
    folder = output / name / _VERSION
    old = _read_settings(folder / 'settings.json')
    ids = _make_ids(sources)
    wanted = (split,) if split else tuple(sources)
    new = {**dataclasses.asdict(encoding)}
    new |= {f'classes of {column}': list(names) for column, names in classes.items()}
    shards = {}
    for name_of_split, source in sources.items():
        keys = [f'{name_of_split}: {what}' for what in ('shards', 'listing')]
        if name_of_split not in wanted and keys[0] not in old:
            continue
        count = (name_of_split in wanted and num_shards) or old.get(keys[0])
        count = min(count or _default_shards(source), len(source))
        new |= zip(keys, (count, _hash_listing(ids[name_of_split], source)), strict=True)
        base = folder / f'{name}-{name_of_split}.array_record'
        shards[name_of_split] = _cut(base, name_of_split, ids[name_of_split], count)
    _check_same(old, new, folder)
    (folder / 'manifest').mkdir(parents=True, exist_ok=True)
    if new != old:
        replace_text(folder / 'settings.json', json.dumps(new, indent=1))
    return Plan(folder, name, sources, classes, encoding, shards, wanted, videos.label_separator)


def _read_settings(path: Path) -> dict[str, object]:
    if path.exists():
        return json.loads(path.read_text(encoding='utf-8'))
    if path.parent.exists() and any(path.parent.iterdir()):
        raise UserError(f'{path.parent} holds something else: name another --output or --name')
    return {}


def _check_same(old: Mapping[str, object], new: Mapping[str, object], folder: Path):
    def short(value: object) -> str:
        text = repr(value)
        return text if len(text) < 40 else f'{text[:30]}…'

    differ = [
        f'{key} was {short(value)} and is {short(new.get(key))}'
        for key, value in old.items()
        if new.get(key) != value
    ]
    if differ:
        raise UserError(
            f'{folder} was packed with other settings or lists of videos: {"; ".join(differ)}. Use '
            'the same, or name another --output or --name'
        )


def _make_ids(sources: Mapping[str, VideoSource]) -> dict[str, tuple[str, ...]]:
    """The paths from the folder that all share, and the part where it is one."""
    paths = {
        split: [_path(row, source) for row in source.videos] for split, source in sources.items()
    }
    folders = {os.path.dirname(path) for found in paths.values() for path in found}
    folders = set(filter(os.path.isabs, folders))
    root = os.path.commonpath(folders) if folders else ''
    ids = {}
    for split, source in sources.items():
        ids[split] = tuple(
            (os.path.relpath(path, root) if os.path.isabs(path) else path) + _part(row)
            for path, row in zip(paths[split], source.videos, strict=True)
        )
        twice = [name for name, count in collections.Counter(ids[split]).items() if count > 1]
        if twice:
            raise UserError(
                f'{len(twice)} videos of the {split} split are listed twice, such as {twice[0]}: '
                'each can be packed once'
            )
    return ids


def _path(row: LabeledVideo, source: VideoSource) -> str:
    """Of a file; records may have any name."""
    if isinstance(source, VideoFiles):
        return os.path.abspath(row.video_path)
    return os.path.normpath(row.video_path)


def _part(row: LabeledVideo) -> str:
    for separator, *part in (
        ('-', row.start_sec, row.end_sec),
        ('+', row.start_frame, row.num_frames),
    ):
        if part != [None, None]:
            return ':' + separator.join('' if value is None else str(value) for value in part)
    return ''


def _hash_listing(ids: Sequence[str], source: VideoSource) -> str:
    lines = [f'{name}\t{video.label}' for name, video in zip(ids, source.videos, strict=True)]
    return hashlib.sha256('\n'.join(lines).encode()).hexdigest()


def _default_shards(source: VideoSource) -> int:
    if isinstance(source, VideoFiles):
        paths = {row.video_path for row in source.videos}
    else:
        paths = source.shards if isinstance(source, ArrayRecords) else source.files
    return max(1, math.ceil(sum(map(_count_bytes, paths)) / _SHARD_BYTES))


def _count_bytes(path: str) -> int:
    """Of a file, or of those in a folder; 0 where there is nothing."""
    try:
        if os.path.isdir(path):
            return sum(entry.stat().st_size for entry in os.scandir(path))
        return os.path.getsize(path)
    except OSError:
        return 0


def _cut(base: Path, split: str, ids: Sequence[str], count: int) -> tuple[Shard, ...]:
    edges = [len(ids) * i // count for i in range(count + 1)]
    return tuple(
        Shard(
            base.with_name(f'{base.name}-{i:05d}-of-{count:05d}'),
            split,
            edges[i],
            tuple(ids[edges[i] : edges[i + 1]]),
        )
        for i in range(count)
    )
