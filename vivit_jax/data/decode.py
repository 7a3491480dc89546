"""Frames of a video file, exactly those asked for."""

import ctypes
import io
import itertools
import math
import os
from collections.abc import Callable, Sequence

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

from vivit_jax.data.transforms import Crops
from vivit_jax.errors import UserError

# What a damaged file can raise in FFmpeg and PyAV; MemoryError comes from absurd sizes in headers.
_DECODE_ERRORS = (av.FFmpegError, ValueError, OSError, MemoryError, IndexError, OverflowError)

# Containers that store presentation times. Others, such as AVI, make them up from the order of
# decoding, so that a frame's time says nothing about its place.
_TIMED_CONTAINERS = ('mov', 'matroska')


_LIBC = ctypes.CDLL(None)  # the C library of this process


class VideoError(UserError):
    """A video cannot be used; the message names the file and the reason."""


class VideoReader:
    """The frames of a file's default video stream, or of a part of it, in presentation order.

    >>> with VideoReader('clip.mp4') as video:
    ...     first_and_last = video.read([0, len(video) - 1])

    Args:
        source: path, or the encoded bytes.
        name: what messages call it; the path where there is one.
        start_sec: first moment, in seconds of the stream's own time.
        end_sec: end; a frame that starts then or later is not part of it.

    Raises:
        VideoError: missing, empty or damaged file, no video stream, no frames.
    """

    def __init__(
        self,
        source: str | os.PathLike | bytes,
        *,
        name: str | None = None,
        start_sec: float | None = None,
        end_sec: float | None = None,
    ):
        self.name = name or (str(source) if not isinstance(source, bytes) else 'video')
        self._source = source
        self._container = None
        try:
            self._open()
            self._index(start_sec, end_sec)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> 'VideoReader':
        return self

    def __exit__(self, *_):
        self.close()

    def __len__(self) -> int:
        """Frames, counted from the packets: headers are often wrong or silent."""
        return len(self._pts)

    @property
    def timestamps_sec(self) -> np.ndarray:
        """Presentation time of every frame, float64 [frames]."""
        return self._pts * float(self._stream.time_base)

    def read(
        self,
        indices: Sequence[int],
        crops: Callable[[int, int], Crops] | None = None,
        interpolation: str = 'bilinear',
    ) -> np.ndarray:
        """Decodes frames.

        Args:
            indices: places in presentation order, in any order, repeats allowed.
            crops: given height and width of the upright frame, says how to resize and cut it;
                by default the frame is kept whole.
            interpolation: of the resizing.

        Returns:
            uint8 [n h w 3], or [crops n size size 3].

        Raises:
            VideoError: a frame that was asked for cannot be decoded.
            IndexError: there is no such frame.
        """
        wanted = np.asarray(indices)
        if wanted.min() < 0 or wanted.max() >= len(self):
            raise IndexError(
                f'{self.name}: frames {wanted.min()} … {wanted.max()} asked for, but it has '
                f'{len(self)}'
            )
        places = np.unique(wanted).tolist()
        cut = _Cutter(crops, interpolation)
        self._position = -1
        try:
            try:
                frames = self._read_by_time(places, cut)
            except _TimesLie:
                frames = self._read_by_count(places, cut)
        except _DECODE_ERRORS as error:
            raise VideoError(
                f'{self.name}: damaged: frame {self._position + 1} of {len(self)} cannot be '
                f'decoded ({_reason(error)})'
            ) from error
        if not frames:
            raise VideoError(f'{self.name}: none of its {len(self)} frames could be decoded')
        last = max(frames)  # fewer frames than packets: the last one stands for the missing
        clip = np.stack([frames[min(place, last)] for place in wanted.tolist()], axis=1)
        return clip if crops else clip[0]

    def close(self):
        """Closes the file. Frames already read stay valid."""
        if self._container is not None:
            self._container.close()
            self._container = None
            _trim_heap()

    def _open(self):
        source = self._source
        if not isinstance(source, bytes):
            if not os.path.exists(source):
                raise VideoError(f'{self.name}: no such file')
            if os.path.isdir(source):
                raise VideoError(f'{self.name}: is a folder, not a video file')
            if os.path.getsize(source) == 0:
                raise VideoError(f'{self.name}: the file is empty (0 bytes)')
        try:
            file = io.BytesIO(source) if isinstance(source, bytes) else f'file:{source}'
            self._container = av.open(file)
            stream = self._container.streams.best('video')
        except _DECODE_ERRORS as error:
            raise VideoError(
                f'{self.name}: not a video file, or damaged ({_reason(error)})'
            ) from error
        if stream is None or Disposition.attached_pic in stream.disposition:
            kinds = sorted({s.type for s in self._container.streams}) or ['nothing']
            raise VideoError(f'{self.name}: has no video stream (it holds: {", ".join(kinds)})')
        # One thread: a clip is short, and the cores are better used by other videos.
        stream.thread_type = 'NONE'
        self._stream = stream

    def _index(self, start_sec: float | None, end_sec: float | None):
        """Lists the frames from the packets, without decoding any."""
        stream, base = self._stream, self._stream.time_base
        self._has_times = any(name in self._container.format.name for name in _TIMED_CONTAINERS)
        # A hair early, so that 0.28 s finds the frame at 7/25 s.
        start = -math.inf if start_sec is None else start_sec / base - 1e-5
        end = math.inf if end_sec is None else end_sec / base - 1e-5
        seeks = self._has_times and start_sec is not None
        packets = self._packets(start if seeks else None, end)
        if seeks and packets and (packets[0][0] or 0) > start:
            # FFmpeg seeks MP4 by decoding times: that key frame is shown only after `start`.
            seeks = False
            packets = self._packets(0, end)
        if not packets:
            raise VideoError(f'{self.name}: has no frames')

        times = {pts for pts, _ in packets}
        if None in times or len(times) < len(packets):
            if math.isfinite(start) or math.isfinite(end):
                raise VideoError(f'{self.name}: has no usable timestamps to find a segment by')
            self._has_times = False
            rate = stream.average_rate or 25
            packets = [(round(i / rate / base), True) for i in range(len(packets))]
        packets.sort()
        pts = np.array([pts for pts, _ in packets], np.int64)
        part = np.flatnonzero((pts >= start) & (pts < end))
        if not part.size:
            raise VideoError(
                f'{self.name}: has no frame from {start_sec} to {end_sec} s; those found lie '
                f'from {float(pts[0] * base):.2f} to {float(pts[-1] * base):.2f} s'
            )
        self._pts = pts[part]
        self._frames_before = None if seeks else int(part[0])
        # A part's first frames are reached from the key frame before it.
        keys = [pts for pts, is_key in packets if is_key] or [packets[0][0]]
        self._key_pts = np.array(keys, np.int64)

    def _packets(self, start: float | None, end: float) -> list[tuple[int | None, bool]]:
        """Presentation time and kind of the packets from the key frame before `start`."""
        packets = []
        try:
            if start is not None:
                self._container.seek(max(int(start), 0), stream=self._stream, backward=True)
            for packet in self._container.demux(self._stream):
                if not packet.size or packet.is_discard:
                    continue
                if packet.dts is not None and packet.dts >= end:
                    break  # what is shown before `end` is stored before it
                packets.append((packet.pts, packet.is_keyframe))
        except _DECODE_ERRORS as error:
            if not packets:
                raise VideoError(f'{self.name}: damaged ({_reason(error)})') from error
        return packets

    def _read_by_time(self, places: list[int], cut: '_Cutter') -> dict[int, np.ndarray]:
        """Decodes from the key frame before each place, and knows frames by their times."""
        if not self._has_times:
            raise _TimesLie
        frames, decoder = {}, iter(())
        for place in places:
            key = max(int(np.searchsorted(self._key_pts, self._pts[place], 'right')) - 1, 0)
            key_place = int(np.searchsorted(self._pts, self._key_pts[key]))
            if not frames or key_place > self._position + 1:
                self._container.seek(self._key_pts[key].item(), stream=self._stream, backward=True)
                decoder, frame = self._container.decode(self._stream), None
            for frame in decoder:
                self._position = self._place_of(frame)
                if self._position >= place:
                    break
            else:
                if frame is None or self._position < 0:
                    raise _TimesLie
                if self._position not in frames:  # it stands for those missing after it
                    frames[self._position] = cut(frame)
                return frames
            if self._position > place:
                raise _TimesLie
            frames[place] = cut(frame)
        return frames

    def _place_of(self, frame: av.VideoFrame) -> int:
        if frame.pts is None:
            raise _TimesLie
        if frame.pts < self._pts[0]:
            return -1
        place = int(np.searchsorted(self._pts, frame.pts))
        if place < len(self) and self._pts[place] != frame.pts:
            raise _TimesLie
        return place

    def _read_by_count(self, places: list[int], cut: '_Cutter') -> dict[int, np.ndarray]:
        """Decodes from the start of the file, and knows frames by their order."""
        if self._frames_before is None:
            raise VideoError(f'{self.name}: its timestamps are wrong: no segment can be found')
        self.close()
        self._open()
        frames, wanted, frame = {}, set(places), None
        for count, frame in enumerate(self._container.decode(self._stream)):
            self._position = count - self._frames_before
            if self._position in wanted:
                frames[self._position] = cut(frame)
            if self._position == places[-1]:
                break
        if frame is not None and self._position >= 0 and self._position not in frames:
            frames[self._position] = cut(frame)  # it stands for those missing after it
        return frames


class _TimesLie(Exception):
    """Decoded frames do not carry the times that their packets announced."""


class _Cutter:
    """Turns decoded frames upright, resizes and cuts them: uint8 [crops h w 3]."""

    def __init__(self, crops: Callable[[int, int], Crops] | None, interpolation: str):
        self._choose = crops
        self._crops = None
        self._interpolation = interpolation.upper()
        # Shared by all frames: a scaler of its own for each costs seven times as much.
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> np.ndarray:
        quarter_turns = round(frame.rotation / 90) % 4  # counter-clockwise
        lies = quarter_turns % 2
        if self._crops is None:
            size = (frame.width, frame.height) if lies else (frame.height, frame.width)
            whole = Crops(*size, ((0, 0),), size)
            self._crops = self._choose(*size) if self._choose else whole
        height, width = self._crops.height, self._crops.width
        frame = self._reformatter.reformat(
            frame,
            width=height if lies else width,
            height=width if lies else height,
            format='rgb24',
            interpolation=self._interpolation,
            threads=1,
        )
        plane = frame.planes[0]
        pixels = np.frombuffer(plane, np.uint8).reshape(frame.height, plane.line_size)
        pixels = pixels[:, : 3 * frame.width].reshape(frame.height, frame.width, 3)
        pixels = np.rot90(pixels, quarter_turns)
        high, wide = self._crops.size
        return np.stack(
            [pixels[top : top + high, left : left + wide] for top, left in self._crops.corners]
        )


_closed = itertools.count(1)


def _trim_heap():
    """Gives freed memory back now and then: FFmpeg's buffers leave glibc's heap full of holes."""
    if next(_closed) % 50 == 0 and hasattr(_LIBC, 'malloc_trim'):
        _LIBC.malloc_trim(0)


def _reason(error: BaseException) -> str:
    return getattr(error, 'strerror', None) or str(error) or type(error).__name__
