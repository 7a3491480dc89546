"""The videos that a config names."""

import dataclasses
import os
from collections.abc import Sequence

from ml_collections import ConfigDict

from vivit_jax.data.annotations import (
    Annotations,
    check_listing,
    load_annotations,
    read_label_map,
)
from vivit_jax.data.catalog import DATASETS, read_dataset
from vivit_jax.data.readers.native import read_csv_files
from vivit_jax.data.records import Records, find_shards
from vivit_jax.data.synthetic import LABEL_COLUMNS, SyntheticVideos, create_synthetic_videos
from vivit_jax.data.tfrecord import load_tfrecords
from vivit_jax.data.videos import VideoFiles, Videos
from vivit_jax.errors import UserError
from vivit_jax.heads import LabelNames, PerHead

SOURCES = ('csv', 'synthetic', 'records', 'tfrecords')  # beside the datasets of the catalog


def load_videos(
    data: ConfigDict,
    *,
    num_classes: PerHead[int] | None = None,
    label_names: LabelNames | None = None,
    splits: Sequence[str] = ('train', 'val', 'test'),
) -> Videos:
    """Lists and checks the videos of the section `data` of a config.

    The heads are `data.label_columns`. The embedded videos have two columns, `label` (motion) and
    `sprite` (shape); heads with other names take them in this order.

    Args:
        data: the section.
        num_classes: of the model, where it is fixed.
        label_names: of a trained model, which win over those of the data.
        splits: which of the splits to read, as far as there are such.

    Raises:
        UserError: see `check_listing` and the readers of `vivit_jax.data.readers`.
    """
    heads = data.label_columns
    _check_heads(heads)
    if label_names is None and data.label_map:
        label_names = read_label_maps(data.label_map, heads)
    if data.source == 'tfrecords':
        return _load_tfrecords(data, label_names, splits)
    checks = {
        'label_columns': {head: head for head in heads},
        'label_names': label_names,
        'num_classes': num_classes,
        'max_bad_fraction': data.max_bad_fraction,
    }
    if data.source == 'records':
        return _load_records(data.root, checks, splits)
    if data.source == 'synthetic':
        checks['label_columns'] = _embedded_columns(heads)
        what = SyntheticVideos(**data.synthetic.to_dict())
        folder = create_synthetic_videos(what, data.cache_dir)
        annotations = load_annotations(
            {name: str(folder / f'{name}.csv') for name in splits}, **checks
        )
    elif data.source == 'csv':
        annotations = load_annotations(_listed_files(data, splits), root=data.root, **checks)
    else:
        annotations = _read_dataset(data, checks, splits)
    videos = {split: VideoFiles(rows) for split, rows in annotations.splits.items()}
    return Videos(videos, annotations.label_names, annotations.expected)


def _listed_files(data: ConfigDict, splits: Sequence[str]) -> dict[str, str]:
    files = {split: data[f'{split}_csv'] for split in splits if data[f'{split}_csv']}
    if not files:
        keys = ' or '.join(f'data.{split}_csv' for split in splits)
        raise UserError(
            f'no videos: set {keys}, or data.source and data.root to a dataset and its folder'
        )
    return files


def _read_dataset(data: ConfigDict, checks: dict, splits: Sequence[str]) -> Annotations:
    """The videos of a dataset of the catalog, in its own layout."""
    if data.source not in DATASETS:
        known = ', '.join([*SOURCES, *DATASETS])
        raise UserError(f'there is no data.source={data.source!r}; known: {known}')
    if not data.root:
        raise UserError(
            f'set data.root to the folder of the videos of {data.source}, and data.annotations '
            'where its annotation files are elsewhere. To see a config run without its data, add '
            '":runlocal" to --config'
        )
    dataset = DATASETS[data.source]
    if not set(data.label_columns) <= set(dataset.label_columns):
        columns = ' '.join(f'--config.data.label_columns={x}' for x in dataset.label_columns)
        raise UserError(
            f'{data.source} has labels for {" and ".join(dataset.label_columns)}, not for '
            f'{", ".join(data.label_columns)}: give {columns}'
        )
    listing = read_dataset(
        dataset,
        data.root,
        annotations=data.annotations,
        protocol=data.protocol,
    )
    found = {split: lines for split, lines in listing.splits.items() if split in splits}
    if not found:
        raise UserError(f'{data.source} in {data.root} has no split {" or ".join(splits)}')
    return check_listing(dataclasses.replace(listing, splits=found), **checks)


def _load_records(folder: str, checks: dict, splits: Sequence[str]) -> Videos:
    """What `python -m vivit_jax.prepare records` wrote: row i of a split's CSV is record i."""
    files = {split: os.path.join(folder, f'{split}.csv') for split in splits}
    files = {split: path for split, path in files.items() if os.path.exists(path)}
    if not files:
        raise UserError(
            f'data.root={folder!r} holds no {" or ".join(f"{split}.csv" for split in splits)}: it '
            'should be what vivit_jax.prepare records wrote, such as /data/tfds/kinetics400/1.0.0'
        )
    columns = checks['label_columns'].values()
    listing = read_csv_files(files, folder, tuple(columns))
    classes = {column: os.path.join(folder, f'{column}.labels.txt') for column in columns}
    listing = dataclasses.replace(
        listing, label_names={column: read_label_map(path) for column, path in classes.items()}
    )
    annotations = check_listing(listing, has_files=False, **checks)
    videos = {}
    for split, rows in annotations.splits.items():
        # A record is not a file: its id is the path as the CSV has it.
        rows = [
            dataclasses.replace(row, video_path=os.path.relpath(row.video_path, folder))
            for row in rows
        ]
        videos[split] = Records(rows, find_shards(folder, split))
    return Videos(videos, annotations.label_names)


def _load_tfrecords(
    data: ConfigDict, label_names: LabelNames | None, splits: Sequence[str]
) -> Videos:
    if label_names is None or len(data.label_columns) > 1:
        raise UserError(
            "data.source='tfrecords' needs data.label_map, a file with the class names that "
            'clip/label/text uses, one a line, and one head: the numbers in such files differ '
            'between the runs that made them'
        )
    files = _listed_files(data, splits)
    videos = {split: load_tfrecords(path, label_names) for split, path in files.items()}
    return Videos(videos, label_names)


def _check_heads(heads: tuple[str, ...]):
    # They become parts of names of metrics, files and parameters.
    usable = all(isinstance(head, str) and head and '/' not in head for head in heads)
    if not heads or not usable or len(set(heads)) < len(heads):
        raise UserError(
            f'data.label_columns={heads} must be different columns of the CSV files, without "/" '
            "in their names, such as ('verb', 'noun')"
        )


def _embedded_columns(heads: tuple[str, ...]) -> dict[str, str]:
    """The columns themselves, or in their order: so any config of one or two heads runs."""
    if set(heads) <= set(LABEL_COLUMNS):
        return {head: head for head in heads}
    if len(heads) > len(LABEL_COLUMNS):
        raise UserError(
            f'data.label_columns={heads}: the embedded videos have labels for '
            f'{len(LABEL_COLUMNS)} heads only: {", ".join(LABEL_COLUMNS)}'
        )
    return dict(zip(heads, LABEL_COLUMNS, strict=False))


def read_label_maps(path: str, heads: tuple[str, ...]) -> LabelNames:
    """Class names from a file with one a line, or from one for each of several heads.

    Args:
        path: of the file; with `{head}` in it where there are several.
        heads: their names.

    Raises:
        UserError: a file cannot be used, or there is one for several heads.
    """
    if len(heads) < 2:
        return read_label_map(path)
    if '{head}' not in path:
        raise UserError(
            f'label map {path} must contain {{head}}, which stands for {", ".join(heads)}: '
            'there is a file for each'
        )
    return {head: read_label_map(path.replace('{head}', head)) for head in heads}
