"""Random access to labelled videos, and the splits that a config names."""

import dataclasses
from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from vivit_jax.data.annotations import Row, load_annotations, read_label_map
from vivit_jax.data.decode import VideoReader
from vivit_jax.data.synthetic import SyntheticVideos, create_synthetic_videos
from vivit_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class VideoFiles:
    """Videos that lie as files in a folder."""

    rows: Sequence[Row]

    def __len__(self) -> int:
        return len(self.rows)

    def label(self, index: int) -> int:
        """Class index of a video."""
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
    """The splits of a dataset, by name, and its classes in the order of the labels."""

    splits: Mapping[str, VideoFiles]
    label_names: tuple[str, ...]


def load_videos(
    data: ConfigDict,
    *,
    num_classes: int | None = None,
    label_names: Sequence[str] | None = None,
    splits: Sequence[str] = ('train', 'val', 'test'),
) -> Videos:
    """Lists and checks the videos of the section `data` of a config.

    Args:
        data: the section.
        num_classes: of the model, where it is fixed.
        label_names: of a trained model, which win over those of the data.
        splits: which of the splits to read, as far as the config names them.

    Raises:
        UserError: see `load_annotations`.
    """
    if data.source == 'synthetic':
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
        label_names = read_label_map(data.label_map)
    annotations = load_annotations(
        files,
        root=root,
        label_names=label_names,
        num_classes=num_classes,
        max_bad_fraction=data.max_bad_fraction,
    )
    videos = {split: VideoFiles(rows) for split, rows in annotations.splits.items()}
    return Videos(videos, annotations.label_names)
