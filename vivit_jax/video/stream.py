"""Videos that are read while they come, from files, cameras and networks."""

import collections
import contextlib
import logging
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

import av
import numpy as np

from vivit_jax.errors import UserError
from vivit_jax.video.array_reader import as_frame, check_frame
from vivit_jax.video.crops import view_crops
from vivit_jax.video.files import FORMATS
from vivit_jax.video.frame_reader import DECODE_ERRORS, Cutter, VideoError, reason, upright_size
from vivit_jax.video.limits import Limits
from vivit_jax.video.open import open_video
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.video.sampling import sample_view_frames
from vivit_jax.video.windows import Span, WindowCutter

__all__ = ['Stream', 'open_stream']

_log = logging.getLogger(__name__)
_T = TypeVar('_T')

_TIMEOUT_SEC = 10.0  # without data
_JITTER_SEC = 1.0  # times may go back by less; such frames are left out

# An address may give a live playlist with the addresses of its parts, but no file of this machine.
_LIVE_FORMATS = f'{FORMATS},hls,dash,rtsp,rtp,webvtt,ac3,eac3'
_LOCAL_PROTOCOLS = 'file,fd,pipe,unix,concat,concatf,subfile'


class Stream(NamedTuple):
    """A source of frames.

    Attributes:
        frames: pairs of a time in seconds and a frame. They raise a VideoError where the source is
            damaged or breaks off.
        is_live: whether the source goes on at its own speed, whoever reads it.
    """

    frames: Iterator[tuple[float, av.VideoFrame]]
    is_live: bool


def open_stream(source: str, limits: Limits = Limits()) -> Stream:
    """Opens a video file, a folder of frames, a camera such as `/dev/video0`, or an address.

    Addresses are those that FFmpeg knows, such as `rtsp://…` and `http://…`. An address may give a
    live playlist (HLS or DASH), whose parts have addresses too. A source with an address is live if
    it does not tell how long it is.

    Args:
        source: path or address.
        limits: what a video may have at most; an address or a camera has no limit of its length.

    Raises:
        VideoError: the source cannot be opened, or its frames are too large.
    """
    if source.startswith('file://'):
        source = url2pathname(urlsplit(source).path)
    if '://' not in source and not Path(source).is_char_device():
        return Stream(_read_file(source, limits), is_live=False)
    is_camera = '://' not in source
    options = {'format_whitelist': _LIVE_FORMATS, 'protocol_blacklist': _LOCAL_PROTOCOLS}
    if source.startswith('rtsp'):
        options['rtsp_transport'] = 'tcp'
    try:
        container = av.open(
            source,
            format='v4l2' if is_camera else None,
            options={} if is_camera else options,
            timeout=None if is_camera else _TIMEOUT_SEC,
        )
    except DECODE_ERRORS as error:
        raise VideoError(f'{source}: cannot be opened ({reason(error)})') from error
    stream = container.streams.best('video')
    if stream is None:
        container.close()
        raise VideoError(f'{source}: has no video stream')
    stream.codec_context.options = limits.decoder_options
    is_live = is_camera or not container.duration
    return Stream(_read_container(container, stream, source, is_live, limits), is_live)


def window_clips(
    frames: Iterable[tuple[float, av.VideoFrame | np.ndarray]],
    spec: Preprocessing,
    cutter: WindowCutter,
    frame_sec: float = 0.0,
) -> Iterator[tuple[Span, np.ndarray]]:
    """Makes a clip of every window as soon as the last frame of the window has come.

    Frames are resized and cut at once, and kept no longer than a window needs them.

    Args:
        frames: pairs of a time in seconds and a frame: FFmpeg's, or uint8 [h w 3].
        spec: how clips are made.
        cutter: a new one, which tells the windows.
        frame_sec: the least time between two frames, if it is known. Otherwise a window is
            complete when the first frame after it comes.

    Returns:
        Pairs of a window and its clip, uint8 [t h w 3].

    Raises:
        VideoError: from `frames`, after the last clip of those that came before.
    """
    cut, kept, damage = _cut_middle(spec), collections.deque(), None

    def clip(span: Span) -> np.ndarray:
        places = span.first + sample_view_frames(span.count, spec, 0, 1)
        return np.stack([kept[place - first] for place in places.tolist()])

    first = 0  # place of the oldest kept frame
    try:
        for item in frames:
            time_sec, frame = _pair(item)
            cutter.add(time_sec)
            kept.append(cut(frame))
            for span in cutter.complete_by(time_sec + frame_sec):
                yield span, clip(span)
            while first < cutter.first_needed:
                kept.popleft()
                first += 1
    except VideoError as error:
        damage = error
    if kept:
        for span in cutter.finish():
            yield span, clip(span)
    if damage:
        raise damage


def _pair(item: object) -> tuple[float, av.VideoFrame | np.ndarray]:
    if isinstance(item, tuple) and len(item) == 2:
        return item
    raise UserError(
        'a stream gives pairs of a time in seconds and a frame; frames without times need fps'
    )


def keep_newest(items: Iterable[_T]) -> Iterator[tuple[int, _T]]:
    """Yields items while a thread reads them; of several that came meanwhile, only the newest.

    Returns:
        Pairs of the number of items that were left out right before an item, and the item.
    """
    box, closed = queue.Queue(maxsize=1), threading.Event()

    def read():
        error = None
        try:
            for item in items:
                if closed.is_set():
                    return
                try:
                    left_out = 1 + box.get_nowait()[0]
                except queue.Empty:
                    left_out = 0
                box.put((left_out, item))
        except Exception as problem:
            error = problem
        box.put((None, error))

    threading.Thread(target=read, daemon=True).start()
    try:
        while (found := box.get())[0] is not None:
            yield found
    finally:
        closed.set()
        with contextlib.suppress(queue.Empty):
            box.get_nowait()  # the thread may wait for room
    if found[1]:
        raise found[1]


def _cut_middle(spec: Preprocessing) -> Callable[[av.VideoFrame | np.ndarray], np.ndarray]:
    """A function from frames of any size to the middle of them, uint8 [h w 3]."""
    cutters = {}

    def cut(frame: av.VideoFrame | np.ndarray) -> np.ndarray:
        if not isinstance(frame, av.VideoFrame):
            frame = as_frame(check_frame(frame, 'stream'))
        size = upright_size(frame)
        if size not in cutters:
            cutters.clear()
            cutters[size] = Cutter(view_crops(*size, spec, 1), spec.interpolation)
        return cutters[size](frame)[0]

    return cut


def _read_file(source: str, limits: Limits) -> Iterator[tuple[float, av.VideoFrame]]:
    with open_video(source, limits=limits) as video:
        yield from video.frames()


def _read_container(
    container: av.container.InputContainer,
    stream: av.VideoStream,
    name: str,
    is_live: bool,
    limits: Limits = Limits(),
) -> Iterator[tuple[float, av.VideoFrame]]:
    """Frames with ascending times. Damaged parts of a live source are left out, and counted."""
    last, damaged = -np.inf, 0
    with container:
        try:
            for packet in container.demux(stream):
                try:
                    decoded = packet.decode()
                except DECODE_ERRORS as error:
                    if not is_live:
                        raise
                    damaged += 1
                    if damaged == 1:
                        _log.warning('%s: a part cannot be decoded (%s)', name, reason(error))
                    continue
                for frame in decoded:
                    if problem := limits.describe_size(frame.height, frame.width):
                        raise VideoError(f'{name}: {problem}')
                    if frame.pts is None:
                        raise VideoError(f'{name}: its frames have no times')
                    time_sec = frame.pts * float(stream.time_base)
                    if time_sec < last - _JITTER_SEC:
                        raise VideoError(
                            f'{name}: its times go back from {last:.2f} to {time_sec:.2f} s: open '
                            'it again'
                        )
                    if time_sec > last:
                        last = time_sec
                        yield time_sec, frame
        except DECODE_ERRORS as error:
            if isinstance(error, VideoError):
                raise
            raise VideoError(f'{name}: breaks off ({reason(error)})') from error
        finally:
            if damaged > 1:
                _log.warning('%s: %d parts could not be decoded', name, damaged)
