"""The dataset that a config names, its videos ready to be opened."""

import dataclasses
import os
from collections.abc import Sequence

from ml_collections import ConfigDict

from vivit_jax.annotations.annotation import Annotations
from vivit_jax.annotations.catalog import DATASETS, read_dataset
from vivit_jax.annotations.check import check_annotations
from vivit_jax.annotations.dataset import Dataset, LabeledVideo
from vivit_jax.annotations.depth_videos import choose_videos
from vivit_jax.annotations.label_map import read_label_map, read_label_maps
from vivit_jax.annotations.readers.csv_files import read_csv_files
from vivit_jax.annotations.validation_split import draw_validation
from vivit_jax.batches.array_record import ArrayRecords, find_shards
from vivit_jax.batches.sources import VideoFiles, VideoSource
from vivit_jax.batches.tfrecord import load_tfrecords
from vivit_jax.errors import UserError, describe_closed
from vivit_jax.heads import LabelNames, PerHead
from vivit_jax.video.limits import Limits
from vivit_jax.video.synthetic import LABEL_COLUMNS, SyntheticVideos, create_synthetic_videos

_SPLITS = ('train', 'val', 'test')
SOURCES = ('csv', 'synthetic', 'records', 'tfrecords')  # beside the datasets of the catalog


def load_dataset(
    data: ConfigDict,
    *,
    seed: int = 0,
    num_classes: PerHead[int] | None = None,
    label_names: LabelNames | None = None,
    splits: Sequence[str] = _SPLITS,
    modality: str = 'rgb',
    stretch_depth: bool = False,
) -> Dataset[VideoSource]:
    """Reads and checks the annotations of the section `data` of a config.

    If `data.val_fraction` is set, `val` is drawn from the training list. Without CSVs, `data.root`
    is a folder of videos for each class.

    If `data.label_separator` is set, videos have any number of labels each.

    The heads are `data.label_columns`. The embedded videos have two columns, `label` (motion) and
    `sprite` (shape); heads with other names take these columns in this order.

    Args:
        data: the section.
        seed: of the draw of the validation split.
        num_classes: of the model, if it is fixed.
        label_names: the classes of a trained model, which win over the classes of the data.
        splits: the splits to read, as far as the dataset has them.
        modality: `'rgb'`; `'depth'`, for which depth videos take the place of the videos; or
            `'rgbd'`.
        stretch_depth: see `Preprocessing`.

    Returns:
        A source of videos for each split.

    Raises:
        UserError: see `check_annotations` and the readers of `vivit_jax.annotations.readers`.
    """
    heads = data.label_columns
    _check_heads(heads)
    _check_label_separator(data)
    if label_names is None and data.label_map:
        label_names = read_label_maps(data.label_map, heads)
    _check_fraction(data)
    _check_modality(data, modality)
    if data.source == 'tfrecords':  # they hold labels and videos in one
        return _load_tfrecords(data, label_names, splits)
    columns = dict(zip(heads, heads, strict=True))
    if data.source == 'synthetic':
        columns = _embedded_columns(heads)
    annotations = _read_annotations(
        data, tuple(columns.values()), _SPLITS if data.val_fraction else splits, modality
    )
    if data.source != 'records':  # they hold the videos of one modality
        annotations = choose_videos(annotations, modality)
    fraction = annotations.val_fraction if data.val_fraction is None else data.val_fraction
    if fraction:
        annotations = draw_validation(
            annotations, fraction, seed, tuple(columns.values()), data.label_separator
        )
    annotations = _keep_splits(annotations, splits, data.root)
    dataset = check_annotations(
        annotations,
        label_columns=columns,
        label_names=label_names,
        num_classes=num_classes,
        max_bad_fraction=data.max_bad_fraction,
        has_files=data.source != 'records',
        label_separator=data.label_separator,
    )
    options = {
        'modality': modality,
        'limits': Limits(**data.limits),
        'num_classes': len(dataset.label_names) if data.label_separator else None,
    }
    sources = {
        split: _find_records(data.root, split, videos, options)
        if data.source == 'records'
        else VideoFiles(videos, is_stretched=stretch_depth, **options)
        for split, videos in dataset.splits.items()
    }
    return dataclasses.replace(dataset, splits=sources, val_is_drawn=bool(fraction))


def _read_annotations(
    data: ConfigDict, columns: Sequence[str], splits: Sequence[str], modality: str
) -> Annotations:
    if data.source == 'synthetic':
        folder = create_synthetic_videos(
            SyntheticVideos(**data.synthetic.to_dict()),
            data.cache_dir,
            has_depth=modality != 'rgb',
        )
        return read_csv_files(
            {split: str(folder / f'{split}.csv') for split in splits}, '', columns
        )
    if data.source == 'csv' and (_csv_files(data, _SPLITS) or not data.root):
        files = _listed_files(data, splits)
        return read_csv_files(
            files,
            data.root,
            columns,
            _separator(data.separator),
            needs_labels=not data.label_separator,
        )
    if data.source == 'records':
        return _read_records(data.root, columns, splits, needs_labels=not data.label_separator)
    return _read_published(data, 'class_folders' if data.source == 'csv' else data.source)


def _keep_splits(annotations: Annotations, splits: Sequence[str], root: str) -> Annotations:
    kept = {split: lines for split, lines in annotations.splits.items() if split in splits}
    if not kept:
        raise UserError(
            f'data.root={root} has the split {" and ".join(annotations.splits)}, but not '
            f'{" or ".join(splits)}'
        )
    return dataclasses.replace(annotations, splits=kept)


def _check_modality(data: ConfigDict, modality: str):
    if (data.source, modality) in (
        ('records', 'rgbd'),
        ('tfrecords', 'rgbd'),
        ('tfrecords', 'depth'),
    ):
        raise UserError(
            f'model.modality={modality!r} cannot be read from {data.source}, which hold one video '
            'each: give the video files and their depth, with a CSV or a dataset as data.source'
        )


def _check_label_separator(data: ConfigDict):
    separator = data.label_separator
    if separator and len(data.label_columns) > 1:
        raise UserError(
            f'data.label_separator={separator!r} puts all labels of a video into one column, but '
            f'data.label_columns={data.label_columns} are several: name one of them'
        )
    if separator and data.source == 'tfrecords':
        raise UserError(
            f'data.label_separator={separator!r}: tfrecords have one label for each video; give '
            'the video files with a CSV'
        )


def _check_fraction(data: ConfigDict):
    fraction = data.val_fraction
    if fraction and not 0 < fraction < 1:
        raise UserError(f'data.val_fraction={fraction} must be less than 1, and not negative')
    if fraction and data.source in ('records', 'tfrecords'):
        raise UserError(
            f'data.val_fraction={fraction} cannot split {data.source}: give it to '
            'vivit_jax.prepare records, which then packs the drawn validation split too'
        )


def _separator(text: str) -> str:
    """The character that `data.separator` names."""
    separator = {'tab': '\t', '\\t': '\t'}.get(text, text)
    if len(separator) != 1 or separator in '"\r\n':
        raise UserError(
            f"data.separator={text!r} must be one character, such as ',' or ';', or tab"
        )
    return separator


def _csv_files(data: ConfigDict, splits: Sequence[str]) -> dict[str, str]:
    return {split: data[f'{split}_csv'] for split in splits if data[f'{split}_csv']}


def _listed_files(data: ConfigDict, splits: Sequence[str]) -> dict[str, str]:
    files = _csv_files(data, splits)
    if not files:
        keys = ' or '.join(f'data.{split}_csv' for split in splits)
        raise UserError(
            f'no videos: set {keys}, or data.root to a folder with a folder of videos for each '
            'class, or data.source and data.root to a dataset and its folder'
        )
    return files


def _read_published(data: ConfigDict, name: str) -> Annotations:
    """The annotations of a dataset of the catalog, in the layout of its publisher."""
    if name not in DATASETS:
        known = ', '.join([*SOURCES, *DATASETS])
        raise UserError(f'there is no data.source={name!r}; known: {known}')
    if not data.root:
        raise UserError(
            f'set data.root to the folder of the videos of {name}, and data.annotations '
            'where its annotation files are elsewhere. To see a config run without its data, add '
            '":runlocal" to --config'
        )
    info = DATASETS[name]
    if not set(data.label_columns) <= set(info.label_columns):
        columns = ' '.join(f'--config.data.label_columns={x}' for x in info.label_columns)
        raise UserError(
            f'{name} has labels for {" and ".join(info.label_columns)}, not for '
            f'{", ".join(data.label_columns)}: give {columns}'
        )
    return read_dataset(info, data.root, annotations=data.annotations, protocol=data.protocol)


def _read_records(
    folder: str, columns: Sequence[str], splits: Sequence[str], needs_labels: bool
) -> Annotations:
    """The CSV files and class names that lie beside records."""
    files = {split: os.path.join(folder, f'{split}.csv') for split in splits}
    files = {split: path for split, path in files.items() if os.path.exists(path)}
    if not files:
        raise UserError(
            f'data.root={folder!r} holds no {" or ".join(f"{split}.csv" for split in splits)}: it '
            'should be what vivit_jax.prepare records wrote, such as /data/tfds/kinetics400/1.0.0'
            f'{describe_closed(os.path.join(folder, f"{splits[0]}.csv"))}'
        )
    annotations = read_csv_files(files, folder, columns, needs_labels=needs_labels)
    classes = {column: os.path.join(folder, f'{column}.labels.txt') for column in columns}
    return dataclasses.replace(
        annotations, label_names={column: read_label_map(path) for column, path in classes.items()}
    )


def _find_records(
    folder: str, split: str, videos: Sequence[LabeledVideo], options: dict[str, object]
) -> ArrayRecords:
    """What `python -m vivit_jax.prepare records` wrote: row i of a split's CSV is record i."""
    # A record is not a file: its id is the path as the CSV has it.
    videos = [
        dataclasses.replace(video, video_path=os.path.relpath(video.video_path, folder))
        for video in videos
    ]
    return ArrayRecords(videos, find_shards(folder, split), **options)


def _load_tfrecords(
    data: ConfigDict, label_names: LabelNames | None, splits: Sequence[str]
) -> Dataset[VideoSource]:
    if label_names is None or len(data.label_columns) > 1:
        raise UserError(
            "data.source='tfrecords' needs data.label_map, a file with the class names that "
            'clip/label/text uses, one a line, and one head: the numbers in such files differ '
            'between the runs that made them'
        )
    files = _listed_files(data, splits)
    limits = Limits(**data.limits)
    sources = {split: load_tfrecords(path, label_names, limits) for split, path in files.items()}
    return Dataset(sources, label_names)


def _check_heads(heads: tuple[str, ...]):
    # They become parts of names of metrics, files and parameters.
    usable = all(isinstance(head, str) and head and '/' not in head for head in heads)
    if not heads or not usable or len(set(heads)) < len(heads):
        raise UserError(
            f'data.label_columns={heads} must be different columns of the CSV files, without "/" '
            "in their names, such as ('verb', 'noun')"
        )


def _embedded_columns(heads: tuple[str, ...]) -> dict[str, str]:
    """For each head the column of its name; if one has none, the columns in their order."""
    if set(heads) <= set(LABEL_COLUMNS):
        return {head: head for head in heads}
    if len(heads) > len(LABEL_COLUMNS):
        raise UserError(
            f'data.label_columns={heads}: the embedded videos have labels for '
            f'{len(LABEL_COLUMNS)} heads only: {", ".join(LABEL_COLUMNS)}'
        )
    return dict(zip(heads, LABEL_COLUMNS, strict=False))
