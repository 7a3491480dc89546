"""Frames of a video file, exactly those asked for."""

import ctypes
import io
import itertools
import math
import os
import re
from collections.abc import Collection, Iterator, Sequence

import av
import numpy as np
from av.stream import Disposition

from vivit_jax.video.files import FORMATS, check_file, describe_refused
from vivit_jax.video.frame_reader import DECODE_ERRORS, FrameReader, VideoError, reason
from vivit_jax.video.limits import Limits

# Containers that store presentation times. Others, such as AVI, make them up from the order of
# decoding, so that a frame's time says nothing about its place.
_TIMED_CONTAINERS = ('mov', 'matroska')

_LIBC = ctypes.CDLL(None)  # the C library of this process
_FFMPEG = ctypes.CDLL(av._core.__file__)  # the libraries that PyAV has loaded
_MAX_BYTES = 2**28  # that FFmpeg allocates at once: a few bytes can announce an index of any length
if hasattr(_FFMPEG, 'av_max_alloc'):
    _FFMPEG.av_max_alloc(ctypes.c_size_t(_MAX_BYTES))


class VideoReader(FrameReader):
    """The frames of a file's default video stream, or of a part of it, in presentation order.

    >>> with VideoReader('clip.mp4') as video:
    ...     first_and_last = video.read([0, len(video) - 1])

    Args:
        source: path, or the encoded bytes.
        name: what messages call the video; by default the path.
        start_sec: first moment, in seconds of the stream's own time.
        end_sec: end; a frame that starts then or later is not part of it.
        limits: what the video may have at most.

    Raises:
        VideoError: missing, empty or damaged file, no video stream, no frames, too many of them or
            too large ones.
    """

    def __init__(
        self,
        source: str | os.PathLike | bytes,
        *,
        name: str | None = None,
        start_sec: float | None = None,
        end_sec: float | None = None,
        limits: Limits = Limits(),
    ):
        self.limits = limits
        self.name = name or (str(source) if not isinstance(source, bytes) else 'video')
        self._source = source
        self._container = None
        try:
            self._open()
            self._index(start_sec, end_sec)
        except BaseException:
            self.close()
            raise

    def __len__(self) -> int:
        """Frames, counted from the packets: headers are often wrong or silent."""
        return len(self._pts)

    @property
    def timestamps_sec(self) -> np.ndarray:
        """Presentation time of every frame, float64 [frames]."""
        return self._pts * float(self._stream.time_base)

    def close(self):
        """Closes the file. Frames already read stay valid."""
        if self._container is not None:
            self._container.close()
            self._container = None
            _trim_heap()

    def _open(self):
        source = self._source
        is_bytes = isinstance(source, bytes)
        if not is_bytes:
            check_file(source, self.name)
        try:
            file = io.BytesIO(source) if is_bytes else f'file:{source}'
            # Nothing but this file is opened, whatever is in it.
            options = {
                'format_whitelist': FORMATS,
                'protocol_whitelist': '' if is_bytes else 'file',
            }
            self._container = av.open(file, options=options)
            stream = self._container.streams.best('video')
        except DECODE_ERRORS as error:
            if kind := describe_refused(source):
                raise VideoError(f'{self.name}: is {kind}') from error
            cause = reason(error)
            if isinstance(error, av.ArgumentError):  # FFmpeg knows the format, which is not allowed
                cause = 'MP4, Matroska, AVI and others that hold their frames can be read'
            raise VideoError(f'{self.name}: not a video file, or damaged ({cause})') from error
        if stream is None or Disposition.attached_pic in stream.disposition:
            kinds = sorted({s.type for s in self._container.streams}) or ['nothing']
            raise VideoError(f'{self.name}: has no video stream (it holds: {", ".join(kinds)})')
        if stream.codec_context is None:
            raise VideoError(f'{self.name}: damaged: its index says not how to decode it')
        context = stream.codec_context
        self._check_size(context.height, context.width)
        context.options = self.limits.decoder_options
        # One thread: a clip is short, and the cores are better used by other videos.
        stream.thread_type = 'NONE'
        self._stream = stream
        # H.264 marks frames that no other refers to: decoding without them changes no other.
        # HEVC's mark holds within a layer only.
        self._can_skip = context.name == 'h264'

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
        self._check_length(len(self), float((self._pts[-1] - self._pts[0]) * base))
        if start_sec is None and end_sec is None:
            self.announced_sec = self._read_duration()
        self._frames_before = None if seeks else int(part[0])
        # A part's first frames are reached from the key frame before it.
        keys = [pts for pts, is_key in packets if is_key] or [packets[0][0]]
        self._key_pts = np.array(keys, np.int64)

    def _read_duration(self) -> float | None:
        """The duration of the stream in seconds, as the header tells it."""
        stream = self._stream
        if stream.duration:
            return float(stream.duration * stream.time_base)
        tag = re.fullmatch(r'(\d+):(\d+):([\d.]+)', stream.metadata.get('DURATION', ''))
        return 3600 * int(tag[1]) + 60 * int(tag[2]) + float(tag[3]) if tag else None

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
                    break  # frames shown before `end` are stored before this packet
                packets.append((packet.pts, packet.is_keyframe))
                if len(packets) > self.limits.max_frames:
                    self._check_length(len(packets), 0)
        except DECODE_ERRORS as error:
            if isinstance(error, VideoError):
                raise
            if not packets:
                raise VideoError(f'{self.name}: damaged ({reason(error)})') from error
        return packets

    def _decode(self, places: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        self._position = -1
        try:
            try:
                yield from self._decode_by_time(places, skips=self._can_skip)
            except _TimesLie:
                yield from self._decode_by_count(places)
        except DECODE_ERRORS as error:
            if isinstance(error, VideoError):
                raise
            context = self._stream.codec_context
            self._check_size(context.height, context.width)  # they may have grown
            raise VideoError(
                f'{self.name}: damaged: frame {self._position + 1} of {len(self)} cannot be '
                f'decoded ({reason(error)})'
            ) from error

    def _decode_by_time(
        self, places: Sequence[int], skips: bool
    ) -> Iterator[tuple[int, av.VideoFrame]]:
        """Decodes from the key frame before each place, and knows frames by their times."""
        if not self._has_times:
            raise _TimesLie
        wanted = set(self._pts[places].tolist()) if skips else None
        last, decoder, frame = None, iter(()), None
        for place in places:
            key = max(int(np.searchsorted(self._key_pts, self._pts[place], 'right')) - 1, 0)
            key_place = int(np.searchsorted(self._pts, self._key_pts[key]))
            if last is None or key_place > self._position + 1:
                self._container.seek(self._key_pts[key].item(), stream=self._stream, backward=True)
                decoder, frame = self._decode_on(wanted), None
            for frame in decoder:
                self._position = self._place_of(frame)
                if self._position >= place:
                    break
            else:
                if skips:  # the last frame may be among those left out
                    yield from self._decode_by_time(places, skips=False)
                    return
                if frame is None or self._position < 0:
                    raise _TimesLie
                if last is None or self._position > last:  # it stands for those missing after it
                    yield self._position, frame
                return
            if self._position > place:
                raise _TimesLie
            last = place
            yield place, frame

    def _decode_on(self, wanted: Collection[int] | None) -> Iterator[av.VideoFrame]:
        """Decodes from the current packet on; may leave out frames that are not `wanted`."""
        context = self._stream.codec_context
        for packet in self._container.demux(self._stream):
            is_wanted = wanted is None or packet.pts is None or packet.pts in wanted
            context.skip_frame = 'DEFAULT' if is_wanted else 'NONREF'
            yield from packet.decode()

    def _place_of(self, frame: av.VideoFrame) -> int:
        if frame.pts is None:
            raise _TimesLie
        if frame.pts < self._pts[0]:
            return -1
        place = int(np.searchsorted(self._pts, frame.pts))
        if place < len(self) and self._pts[place] != frame.pts:
            raise _TimesLie
        return place

    def _decode_by_count(self, places: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        """Decodes from the start of the file, and knows frames by their order."""
        if self._frames_before is None:
            raise VideoError(f'{self.name}: its timestamps are wrong: no segment can be found')
        self.close()
        self._open()
        last, wanted, frame = None, set(places), None
        for count, frame in enumerate(self._container.decode(self._stream)):
            self._position = count - self._frames_before
            if self._position in wanted:
                last = self._position
                yield self._position, frame
            if self._position == places[-1]:
                return
        if frame is None or self._position < 0:
            raise VideoError(f'{self.name}: none of its {len(self)} frames could be decoded')
        if self._position != last:  # it stands for those missing after it
            yield self._position, frame


class _TimesLie(Exception):
    """Decoded frames do not carry the times that their packets announced."""


_closed = itertools.count(1)


def _trim_heap():
    """Gives freed memory back now and then: FFmpeg's buffers leave glibc's heap full of holes."""
    if next(_closed) % 50 == 0 and hasattr(_LIBC, 'malloc_trim'):
        _LIBC.malloc_trim(0)
