"""Readers of frames: the interface, how a reader fails, and which pixels it gives."""

import abc
import math
from collections.abc import Callable, Iterator, Sequence

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from vivit_jax.errors import UserError
from vivit_jax.video.crops import Crops
from vivit_jax.video.depth import DepthCutter
from vivit_jax.video.limits import Limits

__all__ = ['FrameReader', 'VideoError']

# What a damaged file can raise in FFmpeg and PyAV; MemoryError comes from absurd sizes in headers.
DECODE_ERRORS = (av.FFmpegError, ValueError, OSError, MemoryError, IndexError, OverflowError)

# A resized frame that has more pixels than this times the boxes that are cut from it is not made:
# usual videos, cut at random too, stay far below.
_MOST_UNUSED = 64


class VideoError(UserError):
    """A video cannot be used; the message names the file and the reason."""


def reason(error: BaseException) -> str:
    """What went wrong, without the words that the error's class adds."""
    return getattr(error, 'strerror', None) or str(error) or type(error).__name__


class FrameReader(abc.ABC):
    """A video as a sequence of frames.

    Attributes:
        name: what messages call the video.
        announced_sec: the duration that the header of a file announces; None if it does not, or if
            the reader gives a part of the file.
        limits: what the video may have at most.
    """

    name: str
    limits: Limits = Limits()
    announced_sec: float | None = None

    def __enter__(self) -> 'FrameReader':
        return self

    def __exit__(self, *_):
        self.close()

    @abc.abstractmethod
    def __len__(self) -> int:
        """Number of frames."""

    @property
    @abc.abstractmethod
    def timestamps_sec(self) -> np.ndarray:
        """Presentation time of every frame, float64 [frames]."""

    @property
    def frame_sec(self) -> float:
        """The mean time from a frame to the next in seconds; 0 for a single frame."""
        return mean_step(self.timestamps_sec)

    @property
    def duration_sec(self) -> float:
        """Time from the first frame to the end of the last one; 0 for a single frame."""
        return len(self) * self.frame_sec

    @abc.abstractmethod
    def close(self):
        """Closes files and decoders. Frames already read stay valid."""

    @abc.abstractmethod
    def _decode(self, places: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Decodes the frames at ascending places, and gives each with its place.

        A place that does not ascend means that the reader has started over, in a better way: what
        it gave before does not count. If the file ends early, the last frame comes with its own
        place instead of the missing ones.
        """

    def _check_length(self, num_frames: int, seconds: float):
        """Raises a VideoError if the video is longer than its limits allow."""
        if problem := self.limits.describe_length(num_frames, seconds):
            raise VideoError(f'{self.name}: {problem}')

    def _check_size(self, height: int, width: int):
        """Raises a VideoError if frames are larger than the limits allow."""
        if problem := self.limits.describe_size(height, width):
            raise VideoError(f'{self.name}: {problem}')

    def _decode_checked(self, places: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """As `_decode`; a frame may have another size than the header says."""
        for place, frame in self._decode(places):
            self._check_size(frame.height, frame.width)
            yield place, frame

    def read(
        self,
        indices: Sequence[int],
        crops: Callable[[int, int], Crops] | None = None,
        interpolation: str = 'bilinear',
        kind: str = 'rgb',
    ) -> np.ndarray:
        """Decodes, resizes and cuts frames.

        Args:
            indices: places in presentation order, in any order, repeats allowed.
            crops: given height and width of the upright frames, says how to resize and cut them;
                it is called once. By default the frames are kept whole.
            interpolation: of the resizing of RGB.
            kind: what the frames are, `'rgb'` or `'depth'`.

        Returns:
            uint8 [n h w 3], or [crops n size size 3]. Depth is uint16 [… 1], as it was recorded,
            and a resized pixel is the nearest one.

        Raises:
            VideoError: a frame that was asked for cannot be decoded, or is too large.
            IndexError: there is no such frame.
        """
        wanted = np.asarray(indices)
        if wanted.min() < 0 or wanted.max() >= len(self):
            raise IndexError(
                f'{self.name}: frames {wanted.min()} … {wanted.max()} asked for, but it has '
                f'{len(self)}'
            )
        pixels, last, cut = {}, -1, None
        for place, frame in self._decode_checked(np.unique(wanted).tolist()):
            if place <= last:
                pixels.clear()
            if cut is None:
                height, width = upright_size(frame)
                cut = create_cutter((crops or whole_frame)(height, width), interpolation, kind)
            try:
                pixels[place] = cut(frame)
            except DECODE_ERRORS as error:
                raise VideoError(
                    f'{self.name}: frame {place} of {len(self)} cannot be used: {reason(error)}'
                ) from error
            last = place
        # Fewer frames than announced: the last one stands for the missing.
        clip = np.stack([pixels[min(place, last)] for place in wanted.tolist()], axis=1)
        return clip if crops else clip[0]

    def frames(self) -> Iterator[tuple[float, av.VideoFrame]]:
        """Decodes every frame in presentation order, and gives each with its time in seconds.

        Raises:
            VideoError: the next frame cannot be decoded.
        """
        times, last, frame = self.timestamps_sec, -1, None
        for place, frame in self._decode_checked(range(len(self))):
            if place > last:  # else the reader has started over
                last = place
                yield times[place], frame
        for time in times[last + 1 :]:  # fewer frames than announced, as in `read`
            yield time, frame

    def count_readable(self) -> int:
        """Counts the frames before the first that cannot be decoded; decodes the video to tell."""
        count = 0
        try:
            for _ in self.frames():
                count += 1
        except VideoError:
            pass
        return count


def mean_step(times_sec: np.ndarray) -> float:
    """The mean difference of ascending times [n] in seconds; 0 if there is only one."""
    return float(times_sec[-1] - times_sec[0]) / max(len(times_sec) - 1, 1)


def whole_frame(height: int, width: int) -> Crops:
    """Keeps frames as they are."""
    return Crops(height, width, ((0, 0),), (height, width))


def _quarter_turns(frame: av.VideoFrame) -> int:
    """Counter-clockwise turns that make a frame upright."""
    return round(frame.rotation / 90) % 4


def create_cutter(
    crops: Crops, interpolation: str, kind: str
) -> Callable[[av.VideoFrame], np.ndarray]:
    """A function that turns frames of a kind upright, resizes and cuts them, see `read`."""
    if kind == 'rgb':
        return Cutter(crops, interpolation)
    cutter = DepthCutter(crops)
    return lambda frame: cutter(frame, _quarter_turns(frame))


def upright_size(frame: av.VideoFrame) -> tuple[int, int]:
    """(height, width) in pixels."""
    size = frame.height, frame.width
    return size[::-1] if _quarter_turns(frame) % 2 else size


class Cutter:
    """Turns decoded frames upright, resizes and cuts them: uint8 [crops h w 3].

    Args:
        crops: sizes and corners, for upright frames.
        interpolation: of the resizing, see `Preprocessing`.
    """

    def __init__(self, crops: Crops, interpolation: str):
        self._crops = crops
        self._interpolation = interpolation.upper()
        resized, boxes = crops.height * crops.width, len(crops.corners) * math.prod(crops.size)
        self._is_mostly_unused = resized > _MOST_UNUSED * boxes
        # Shared by all frames: a scaler of its own for each costs seven times as much.
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        quarter_turns = _quarter_turns(frame)
        if self._is_mostly_unused:
            pixels = np.rot90(frame.to_ndarray(format='rgb24'), quarter_turns)
            return np.stack([self._resize_box(pixels, *corner) for corner in self._crops.corners])
        height, width = self._crops.height, self._crops.width
        if quarter_turns % 2:
            height, width = width, height
        planes = self._resize(frame, height, width)
        planes = [np.rot90(plane, quarter_turns) for plane in planes]
        return np.stack([self._box(planes, top, left) for top, left in self._crops.corners])

    def _resize(self, frame: av.VideoFrame, height: int, width: int) -> list[np.ndarray]:
        """The planes of the resized frame, see `_planes`."""
        # Scaling to separate planes takes a third of the time, and half-size colours are
        # interpolated whatever the width; without scaling FFmpeg spoils their right edge.
        is_scaled = (height, width) != (frame.height, frame.width)
        frame = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format='gbrp' if is_scaled else 'rgb24',
            interpolation=self._interpolation,
            threads=1,
        )
        return _planes(frame)

    def _resize_box(self, pixels: np.ndarray, top: int, left: int) -> np.ndarray:
        """A box of the resized frame, from the part of the pixels uint8 [h w 3] around the box."""
        source_height, source_width, _ = pixels.shape
        high, wide = self._crops.size
        rows, height, top = _part_around(top, high, self._crops.height, source_height)
        columns, width, left = _part_around(left, wide, self._crops.width, source_width)
        part = np.ascontiguousarray(pixels[rows, columns])
        return self._box(self._resize(av.VideoFrame.from_ndarray(part), height, width), top, left)

    def _box(self, planes: list[np.ndarray], top: int, left: int) -> np.ndarray:
        high, wide = self._crops.size
        parts = [plane[top : top + high, left : left + wide] for plane in planes]
        return parts[0] if len(parts) == 1 else np.stack(parts, axis=-1)


def _part_around(start: int, size: int, resized: int, source: int) -> tuple[slice, int, int]:
    """The part of a side of `source` pixels that decides `size` pixels of the resized side.

    Returns:
        The part, its length when it is resized, and where the `size` pixels begin in it.
    """
    scale = resized / source
    margin = math.ceil(2 * max(1, 1 / scale))  # reach of the interpolation
    first = max(0, math.floor(start / scale) - margin)
    last = min(source, math.ceil((start + size) / scale) + margin)
    length = max(size, round((last - first) * scale))
    return slice(first, last), length, min(round(start - first * scale), length - size)


def _planes(frame: av.VideoFrame) -> list[np.ndarray]:
    """The pixels, not copied: [h w 3], or red, green and blue [h w] where they lie apart."""
    rows = [
        np.frombuffer(plane, np.uint8).reshape(frame.height, plane.line_size)
        for plane in frame.planes
    ]
    if len(rows) == 1:
        return [rows[0][:, : 3 * frame.width].reshape(frame.height, frame.width, 3)]
    green, blue, red = (part[:, : frame.width] for part in rows)
    return [red, green, blue]
