"""Which parts of a video get an answer of their own."""

import bisect
import math
from typing import NamedTuple

import numpy as np

from vivit_jax.errors import UserError
from vivit_jax.video.frame_reader import VideoError, mean_step
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.video.sampling import clip_span

_HAIR_SEC = 1e-6  # frames at 3/10 s and a window from 3 · 0.1 s on meet in spite of rounding


class Span(NamedTuple):
    """A window of a video.

    Attributes:
        start_sec, end_sec: its time.
        first: place of the first frame in it.
        count: number of frames in it, at least one.
    """

    start_sec: float
    end_sec: float
    first: int
    count: int


def cover(
    times_sec: np.ndarray,
    spec: Preprocessing,
    windows: tuple[float, float] | None,
    name: str,
) -> list[Span]:
    """The windows of a video.

    Args:
        times_sec: the time of every frame, float64 [frames].
        spec: how clips are made.
        windows: length and distance in seconds, for the windows of `WindowCutter`. By default
            windows of a strided clip's length follow each other, and the last ends with the video;
            if clips are drawn from segments or units, one window is the whole video.
        name: what messages call the video.

    Raises:
        VideoError: windows are shorter than a frame.
    """
    if windows is None:
        return _cover_by_clips(times_sec, spec)
    try:
        check_windows(*windows, float(np.median(np.diff(times_sec))) if len(times_sec) > 1 else 0.0)
    except UserError as error:
        raise VideoError(f'{name}: {error}') from error
    cutter, spans = WindowCutter(*windows), []
    for time_sec in times_sec.tolist():
        cutter.add(time_sec)
        spans += cutter.complete_by(time_sec)
    return spans + cutter.finish()


def _cover_by_clips(times_sec: np.ndarray, spec: Preprocessing) -> list[Span]:
    length = len(times_sec)
    size = clip_span(spec)
    if spec.short_video == 'smaller_stride':  # of a shorter window
        size = spec.num_frames * spec.frame_stride
    if spec.sampling != 'strided' or length <= size:
        starts, size = [0], length
    else:
        starts = [*range(0, length - size, size), length - size]
    frame_sec = mean_step(times_sec)
    return [
        Span(float(times_sec[i]), float(times_sec[i + size - 1]) + frame_sec, i, size)
        for i in starts
    ]


def choose_windows(
    window_sec: float | None, stride_sec: float | None
) -> tuple[float, float] | None:
    """Length and distance of windows in seconds; None if no length is asked for.

    Args:
        window_sec: length, if one is asked for.
        stride_sec: distance, by default the length.

    Raises:
        UserError: one of them is not positive, or there is a distance without a length.
    """
    if window_sec is None:
        if stride_sec is not None:
            raise UserError(f'stride_sec={stride_sec} needs window_sec')
        return None
    stride_sec = window_sec if stride_sec is None else stride_sec
    check_windows(window_sec, stride_sec)
    return window_sec, stride_sec


def check_windows(window_sec: float, stride_sec: float, frame_sec: float = 0.0):
    """Raises a UserError unless windows have a length and a distance of at least a frame."""
    for name, value in (('window_sec', window_sec), ('stride_sec', stride_sec)):
        if not 0 < value < math.inf:
            raise UserError(f'{name}={value} must be a positive number of seconds')
        if value < frame_sec - _HAIR_SEC:
            raise UserError(
                f'{name}={value} is shorter than a frame, which lasts {frame_sec:.4g} s'
            )


class WindowCutter:
    """Cuts a video into windows of equal time while its frames come.

    Window k lasts from `k · stride_sec` to `k · stride_sec + window_sec` after the first frame, and
    has the frames whose times lie in it. A window without frames is left out. The last window is
    the first that reaches beyond the last frame: it ends with the video, `window_sec` after its
    start or after the start of the video.

    Args:
        window_sec: length of a window.
        stride_sec: distance of windows.
    """

    def __init__(self, window_sec: float, stride_sec: float):
        self._window_sec = window_sec
        self._stride_sec = stride_sec
        self._zero = None  # time of the first frame
        self._number = 0  # of the next window
        self._times = []  # of the frames from `first_needed` on
        self.first_needed = 0  # no later window has a frame before this place
        self._covered = 0  # frames up to the end of the last window

    def add(self, time_sec: float):
        """Takes the time of the next frame.

        Raises:
            UserError: the time is not later than the time of the frame before.
        """
        if self._times and not time_sec > self._times[-1]:
            raise UserError(
                f'times of frames must ascend, but {time_sec} s follows {self._times[-1]} s'
            )
        if self._zero is None:
            self._zero = time_sec
        self._times.append(time_sec)

    def complete_by(self, time_sec: float) -> list[Span]:
        """The windows that get no more frames if every later frame comes at `time_sec` or later."""
        spans = []
        while (end := self._start(self._number) + self._window_sec) <= time_sec + _HAIR_SEC:
            start = self._start(self._number)
            first, after = self._place(start), self._place(end)
            self._number += 1
            if first < after:
                spans.append(Span(start, end, first, after - first))
                self._covered = after
            else:  # a pause, perhaps a long one
                passed = (time_sec - self._zero - self._window_sec) / self._stride_sec
                self._number = max(self._number, math.floor(passed))
        # A later window ends after the newest frame, also if it is the last one.
        self._forget(self._place(self._times[-1] - self._window_sec))
        return spans

    def finish(self) -> list[Span]:
        """The last window, if no other has the last frame."""
        num_frames = self.first_needed + len(self._times)
        if self._covered == num_frames:
            return []
        last = self._times[-1]
        video_end = last + (last - self._zero) / max(num_frames - 1, 1)
        start = self._start(self._number)
        end = start + self._window_sec
        if end > video_end + _HAIR_SEC:
            start, end = max(self._zero, video_end - self._window_sec), video_end
        first = self._place(start)
        return [Span(start, end, first, num_frames - first)] if first < num_frames else []

    def _start(self, number: int) -> float:
        return self._zero + number * self._stride_sec

    def _place(self, time_sec: float) -> int:
        """The place of the first frame at that time or later."""
        return self.first_needed + bisect.bisect_left(self._times, time_sec - _HAIR_SEC)

    def _forget(self, place: int):
        """Forgets the frames before a place."""
        del self._times[: place - self.first_needed]
        self.first_needed = place
