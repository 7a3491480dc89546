"""Random access to labelled videos, and the splits that a config names."""

import dataclasses
from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from vivit_jax.data.annotations import Row, load_annotations, read_label_map
from vivit_jax.data.decode import VideoReader
from vivit_jax.data.synthetic import LABEL_COLUMNS, SyntheticVideos, create_synthetic_videos
from vivit_jax.errors import UserError
from vivit_jax.heads import LabelNames, PerHead


@dataclasses.dataclass(frozen=True)
class VideoFiles:
    """Videos that lie as files in a folder."""

    rows: Sequence[Row]

    def __len__(self) -> int:
        return len(self.rows)

    def label(self, index: int) -> PerHead[int]:
        """Class index of a video, of each head."""
        return self.rows[index].label

    def name(self, index: int) -> str:
        """What messages and lists call a video: its path, and its part where it is one."""
        row = self.rows[index]
        if row.start_sec is None and row.end_sec is None:
            return row.video_path
        return f'{row.video_path} [{row.start_sec}, {row.end_sec}] s'

    def open(self, index: int) -> VideoReader:
        """Opens a video.

        Raises:
            VideoError: it cannot be used.
        """
        row = self.rows[index]
        return VideoReader(row.video_path, start_sec=row.start_sec, end_sec=row.end_sec)


@dataclasses.dataclass(frozen=True)
class Videos:
    """The splits of a dataset, by name, and its classes."""

    splits: Mapping[str, VideoFiles]
    label_names: LabelNames


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
        splits: which of the splits to read, as far as the config names them.

    Raises:
        UserError: see `load_annotations`.
    """
    heads = data.label_columns
    _check_heads(heads)
    label_columns = {head: head for head in heads}
    if data.source == 'synthetic':
        label_columns = _embedded_columns(heads)
        folder = create_synthetic_videos(
            SyntheticVideos(**data.synthetic.to_dict()), data.cache_dir
        )
        files = {split: str(folder / f'{split}.csv') for split in splits}
        root = ''
    elif data.source == 'csv':
        files = {split: data[f'{split}_csv'] for split in splits if data[f'{split}_csv']}
        root = data.root
    else:
        raise UserError(f"data.source={data.source!r} must be 'csv' or 'synthetic'")
    if not files:
        raise UserError(f'no videos: set {" or ".join(f"data.{split}_csv" for split in splits)}')
    if label_names is None and data.label_map:
        label_names = read_label_maps(data.label_map, heads)
    annotations = load_annotations(
        files,
        label_columns=label_columns,
        root=root,
        label_names=label_names,
        num_classes=num_classes,
        max_bad_fraction=data.max_bad_fraction,
    )
    videos = {split: VideoFiles(rows) for split, rows in annotations.splits.items()}
    return Videos(videos, annotations.label_names)


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
