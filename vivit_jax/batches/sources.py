"""Random access to labelled videos."""

import abc
import dataclasses
from collections.abc import Sequence

import numpy as np

from vivit_jax.annotations.dataset import LabeledVideo
from vivit_jax.heads import PerHead, map_heads
from vivit_jax.video.frame_reader import FrameReader, VideoError
from vivit_jax.video.limits import Limits
from vivit_jax.video.open import open_video
from vivit_jax.video.recording import Recording


@dataclasses.dataclass(frozen=True)
class VideoSource(abc.ABC):
    """Labelled videos in a fixed order, opened by index. Decoding processes get a copy of it.

    Attributes:
        videos: one for each index.
        modality: `'rgb'`, or `'depth'` if the videos are depth videos, or `'rgbd'`.
        is_stretched: see `Recording`.
        limits: what a video may have at most.
        num_classes: of videos with any number of labels each; None: every video has one label, of
            each head.
    """

    videos: Sequence[LabeledVideo]
    modality: str = dataclasses.field(default='rgb', kw_only=True)
    is_stretched: bool = dataclasses.field(default=False, kw_only=True)
    limits: Limits = dataclasses.field(default=Limits(), kw_only=True)
    num_classes: int | None = dataclasses.field(default=None, kw_only=True)

    @property
    def kinds(self) -> tuple[str, ...]:
        """What the clips of the videos hold: `rgb`, `depth` or both."""
        return ('rgb', 'depth') if self.modality == 'rgbd' else (self.modality,)

    def __len__(self) -> int:
        return len(self.videos)

    def label(self, index: int) -> PerHead[np.ndarray]:
        """The label of a video in a batch.

        The class index, int32 [], of each head; of a video with any number of labels float32
        [classes], 1 for each of its classes and 0 for the others.
        """
        label = self.videos[index].label
        if self.num_classes is None:
            return map_heads(np.int32, label)
        row = np.zeros(self.num_classes, np.float32)
        row[list(label)] = 1
        return row

    def name(self, index: int) -> str:
        """The name of a video in messages and lists."""
        return self.videos[index].video_path

    @abc.abstractmethod
    def open_video(self, index: int, path: str) -> FrameReader:
        """Opens a video, or the depth of a video, which have different paths.

        Raises:
            VideoError: it cannot be used.
        """

    def open(self, index: int) -> Recording:
        """Opens everything that was recorded for an index.

        Raises:
            VideoError: a video cannot be used, or the depth does not fit the RGB.
        """
        video, readers = self.videos[index], {}
        try:
            for kind, path in zip(self.kinds, (video.video_path, video.depth_path), strict=False):
                readers[kind] = self.open_video(index, path)
        except VideoError:
            for reader in readers.values():
                reader.close()
            raise
        return Recording(readers, self.is_stretched)


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

    def open_video(self, index: int, path: str) -> FrameReader:
        video = self.videos[index]
        return open_video(
            path,
            start_sec=video.start_sec,
            end_sec=video.end_sec,
            start_frame=video.start_frame,
            num_frames=video.num_frames,
            limits=self.limits,
        )
