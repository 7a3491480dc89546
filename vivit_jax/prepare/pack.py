"""Packs the videos of a dataset into shards that this library and TFDS read."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from tqdm import tqdm

from vivit_jax.annotations.check import most_bad
from vivit_jax.annotations.csv_text import csv_text, label_texts
from vivit_jax.atomic_files import replace_text
from vivit_jax.errors import UserError
from vivit_jax.prepare.plan import Plan
from vivit_jax.prepare.shards import Entry, Shard, read_entry, verify_shard, write_shard
from vivit_jax.prepare.workers import Died, run_tasks


class Totals(NamedTuple):
    """What the wanted splits of a plan have become."""

    videos: int
    skipped: int
    shards: int
    bytes: int
    written_shards: int
    written_bytes: int


def pack(plan: Plan, *, max_bad_fraction: float, num_workers: int) -> Totals:
    """Writes the shards that are not finished yet, and what describes all that are.

    Beside the shards lie then, for each split, `<split>.csv`, whose row i tells of record i;
    `skipped.csv` with the videos that could not be used; and the metadata of TFDS. In `manifest/`
    every finished shard has an entry; what it contains depends on the videos and settings only.

    Args:
        plan: see `make_plan`.
        max_bad_fraction: part of a split's videos that may be unusable, see `most_bad`.
        num_workers: processes, each of which writes one shard at a time.

    Raises:
        UserError: more videos are unusable than may be.
    """
    entries = {shard.path: read_entry(shard) for shards in plan.shards.values() for shard in shards}
    waiting = [
        shard
        for split in plan.wanted
        for shard in plan.shards[split]
        if entries[shard.path] is None
    ]
    for split in plan.wanted:
        _check_skipped(plan, split, entries, max_bad_fraction)
    for shard, entry in _write_all(plan, waiting, num_workers):
        entries[shard.path] = entry
        _check_skipped(plan, shard.split, entries, max_bad_fraction)
    finished = {
        split: [entries[shard.path] for shard in shards] for split, shards in plan.shards.items()
    }
    finished = {split: found for split, found in finished.items() if all(found)}
    _describe(plan, finished)
    ours = [entry for split in plan.wanted for entry in finished[split]]
    return Totals(
        sum(entry['records'] for entry in ours),
        sum(len(entry['skipped']) for entry in ours),
        len(ours),
        sum(entry['bytes'] for entry in ours),
        len(waiting),
        sum(entries[shard.path]['bytes'] for shard in waiting),
    )


def verify(plan: Plan, *, num_workers: int) -> dict[Path, str]:
    """Reads all shards of the wanted splits and compares them with their entries.

    Returns:
        Those that are damaged, and how.
    """
    shards = [shard for split in plan.wanted for shard in plan.shards[split]]
    results = run_tasks(verify_shard, shards, num_workers)
    bar = tqdm(results, 'verifying', len(shards), unit='shard', disable=None)
    return {shards[place].path: str(found) for place, found in bar if found}


def _write_all(
    plan: Plan, shards: Sequence[Shard], num_workers: int
) -> Iterator[tuple[Shard, Entry]]:
    """Writes shards; one whose process dies is begun anew without the video it died of."""
    write = functools.partial(write_shard, plan.sources, tuple(plan.classes), plan.encoding)
    with tqdm(None, 'packing', sum(len(x.ids) for x in shards), unit='video', disable=None) as bar:
        while shards:
            reading, again = {}, []
            for place, value in run_tasks(write, shards, num_workers):
                shard = shards[place]
                if isinstance(value, int):
                    reading[place] = value
                    bar.update()
                elif not isinstance(value, Died):
                    yield shard, value
                elif place in reading:
                    died = {**shard.died, reading[place]: str(value)}
                    again.append(dataclasses.replace(shard, died=died))
                    bar.update(shard.start - reading[place] - 1)
                else:
                    raise UserError(f'{shard.path}: {value} before it read a video')
            shards = again


def _check_skipped(
    plan: Plan, split: str, entries: Mapping[Path, Entry | None], max_bad_fraction: float
):
    found = filter(None, (entries[shard.path] for shard in plan.shards[split]))
    skipped = [video for entry in found for video in entry['skipped']]
    count = len(plan.sources[split])
    if len(skipped) == count or len(skipped) > most_bad(count, max_bad_fraction):
        raise UserError(
            f'{len(skipped)} of {count} videos of the {split} split cannot be used, such as '
            f'{skipped[0]["reason"]}. Raise data.max_bad_fraction={max_bad_fraction} to go on '
            'without them: the shards that are finished are kept'
        )


def _label_texts(plan: Plan, split: str, index: int) -> list[str]:
    video = plan.sources[split].videos[index]
    return label_texts(video, plan.classes, plan.label_separator)


def _label_feature(plan: Plan, names: Sequence[str]) -> tfds.features.FeatureConnector:
    one = tfds.features.ClassLabel(names=names)
    return tfds.features.Sequence(one) if plan.label_separator else one


def _describe(plan: Plan, finished: Mapping[str, Sequence[Entry]]):
    """Writes the lists of videos and the metadata of TFDS."""
    skipped = []
    for split, entries in finished.items():
        rows = [
            (video['id'], *_label_texts(plan, split, video['index']))
            for entry in entries
            for video in entry['videos']
        ]
        header = ('video_path', *plan.classes)
        replace_text(plan.folder / f'{split}.csv', csv_text(header, rows))
        for shard, entry in zip(plan.shards[split], entries, strict=True):
            for video in entry['skipped']:
                skipped.append((split, video['id'], video['reason'], shard.path.name))
    header = ('split', 'video_path', 'reason', 'shard')
    replace_text(plan.folder / 'skipped.csv', csv_text(header, skipped))
    features = {
        'video': tfds.features.Tensor(shape=(), dtype=np.object_),
        'id': tfds.features.Text(),
        **{name: _label_feature(plan, names) for name, names in plan.classes.items()},
    }
    split_infos = [
        tfds.core.SplitInfo(
            name=split,
            shard_lengths=[entry['records'] for entry in entries],
            num_bytes=sum(entry['bytes'] for entry in entries),
            filename_template=None,
        )
        for split, entries in finished.items()
    ]
    tfds.folder_dataset.write_metadata(
        data_dir=plan.folder,
        features=features,
        split_infos=split_infos,
        filename_template='{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}',
        description='Encoded videos, packed by vivit_jax.',
        check_data=False,  # it would need TensorFlow
    )
