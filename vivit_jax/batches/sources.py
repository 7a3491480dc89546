"""Random access to labelled videos."""

import abc
import dataclasses
from collections.abc import Sequence

from vivit_jax.annotations.dataset import LabeledVideo
from vivit_jax.heads import PerHead
from vivit_jax.video.frame_reader import FrameReader
from vivit_jax.video.open import open_video


@dataclasses.dataclass(frozen=True)
class VideoSource(abc.ABC):
    """Labelled videos in a fixed order, opened by index. Decoding processes get a copy of it.

    Attributes:
        videos: one for each index.
    """

    videos: Sequence[LabeledVideo]

    def __len__(self) -> int:
        return len(self.videos)

    def label(self, index: int) -> PerHead[int]:
        """Class index of a video, of each head."""
        return self.videos[index].label

    def name(self, index: int) -> str:
        """The name of a video in messages and lists."""
        return self.videos[index].video_path

    @abc.abstractmethod
    def open(self, index: int) -> FrameReader:
        """Opens a video.

        Raises:
            VideoError: it cannot be used.
        """


@dataclasses.dataclass(frozen=True)
class VideoFiles(VideoSource):
    """Videos that lie as files, or as folders of frames, in a folder."""

    def name(self, index: int) -> str:
        """The path of a video, and its part if it is one."""
        video = self.videos[index]
        if video.num_frames is not None:
            start = video.start_frame or 0
            return f'{video.video_path} frames {start} … {start + video.num_frames - 1}'
        if video.start_sec is None and video.end_sec is None:
            return video.video_path
        return f'{video.video_path} [{video.start_sec}, {video.end_sec}] s'

    def open(self, index: int) -> FrameReader:
        video = self.videos[index]
        return open_video(
            video.video_path,
            start_sec=video.start_sec,
            end_sec=video.end_sec,
            start_frame=video.start_frame,
            num_frames=video.num_frames,
        )
