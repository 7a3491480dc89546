"""Random access to labelled videos."""

import abc
import dataclasses
from collections.abc import Mapping, Sequence

from vivit_jax.data.annotations import Row
from vivit_jax.data.decode import open_video
from vivit_jax.data.frames import FrameReader
from vivit_jax.heads import LabelNames, PerHead


@dataclasses.dataclass(frozen=True)
class Source(abc.ABC):
    """Labelled videos in a fixed order. It is sent to the decoding processes.

    Attributes:
        rows: one per video.
    """

    rows: Sequence[Row]

    def __len__(self) -> int:
        return len(self.rows)

    def label(self, index: int) -> PerHead[int]:
        """Class index of a video, of each head."""
        return self.rows[index].label

    def name(self, index: int) -> str:
        """What messages and lists call a video."""
        return self.rows[index].video_path

    @abc.abstractmethod
    def open(self, index: int) -> FrameReader:
        """Opens a video.

        Raises:
            VideoError: it cannot be used.
        """


@dataclasses.dataclass(frozen=True)
class VideoFiles(Source):
    """Videos that lie as files, or as folders of frames, in a folder."""

    def name(self, index: int) -> str:
        """What messages and lists call a video: its path, and its part where it is one."""
        row = self.rows[index]
        if row.num_frames is not None:
            start = row.start_frame or 0
            return f'{row.video_path} frames {start} … {start + row.num_frames - 1}'
        if row.start_sec is None and row.end_sec is None:
            return row.video_path
        return f'{row.video_path} [{row.start_sec}, {row.end_sec}] s'

    def open(self, index: int) -> FrameReader:
        row = self.rows[index]
        return open_video(
            row.video_path,
            start_sec=row.start_sec,
            end_sec=row.end_sec,
            start_frame=row.start_frame,
            num_frames=row.num_frames,
        )


@dataclasses.dataclass(frozen=True)
class Videos:
    """The splits of a dataset, by name, its classes, and what is known of the splits' sizes."""

    splits: Mapping[str, Source]
    label_names: LabelNames
    expected: Mapping[str, str] = dataclasses.field(default_factory=dict)
