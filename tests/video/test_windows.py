import numpy as np
import pytest

from vivit_jax.errors import UserError
from vivit_jax.video.frame_reader import VideoError
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.video.windows import WindowCutter, check_windows, cover

SPEC = Preprocessing()


def windows_of(times, window_sec, stride_sec):
    return cover(np.array(times, float), SPEC, (window_sec, stride_sec), 'a.mp4')


def test_windows_follow_each_other_and_the_last_ends_with_the_video():
    times = 3 + np.arange(45) / 10  # 4.5 s from second 3 on
    spans = windows_of(times, 2, 2)
    np.testing.assert_allclose([s[:2] for s in spans], [(3, 5), (5, 7), (5.5, 7.5)], atol=1e-9)
    assert [s[2:] for s in spans] == [(0, 20), (20, 20), (25, 20)]


@pytest.mark.parametrize(
    ('num_frames', 'window_sec', 'stride_sec', 'frames'),
    [
        (40, 2, 2, [(0, 20), (20, 20)]),  # nothing is left
        (15, 2, 2, [(0, 15)]),  # shorter than a window
        (1, 2, 2, [(0, 1)]),
        (30, 1, 0.5, [(0, 10), (5, 10), (10, 10), (15, 10), (20, 10)]),
        (24, 0.3, 0.9, [(0, 3), (9, 3), (18, 3), (21, 3)]),  # windows with gaps between them
        (12, 0.1, 0.3, [(0, 1), (3, 1), (6, 1), (9, 1), (11, 1)]),  # 3 · 0.1 is above 0.3
    ],
)
def test_windows_have_the_frames_of_their_time(num_frames, window_sec, stride_sec, frames):
    spans = windows_of(np.arange(num_frames) / 10, window_sec, stride_sec)
    assert [s[2:] for s in spans] == frames


def test_last_window_ends_with_the_video():
    [span] = windows_of(np.arange(15) / 10, 2, 2)
    assert (span.start_sec, span.end_sec) == pytest.approx((0, 1.5))


def brute_force(times, window_sec, stride_sec):
    """The definition, on whole milliseconds: for every window, which times lie in it."""
    end = times[-1] + (times[-1] - times[0]) / (len(times) - 1)
    spans, start = [], times[0]
    while True:
        is_last = start + window_sec > times[-1]
        if is_last:
            start = max(times[0], min(start, end - window_sec))
        until = np.inf if is_last else start + window_sec
        found = np.flatnonzero((times >= start) & (times < until))
        if found.size:
            spans.append((int(found[0]), int(found.size)))
        if is_last:
            return spans
        start += stride_sec


@pytest.mark.parametrize('seed', range(20))
def test_windows_of_a_variable_frame_rate_follow_the_timestamps(seed):
    rng = np.random.default_rng(seed)
    times = 1000.0 + np.cumsum(rng.choice([10, 40, 41, 1000], 80))
    window, stride = rng.integers(320, 3000, 2)
    spans = windows_of(times / 1000, window / 1000, stride / 1000)
    assert [s[2:] for s in spans] == brute_force(times, window, stride)


@pytest.mark.parametrize('fps', [24, 25, 29.97, 30])
@pytest.mark.parametrize(('window_sec', 'stride_sec'), [(1, 1), (2, 0.5), (0.4, 1.3)])
def test_windows_known_ahead_are_the_same(fps, window_sec, stride_sec):
    times = np.arange(311) / fps
    cutter, spans = WindowCutter(window_sec, stride_sec), []
    for place, time in enumerate(times.tolist()):
        cutter.add(time)
        complete = cutter.complete_by(time + 1 / fps)
        assert all(span.first + span.count == place + 1 for span in complete[:1])
        spans += complete
    assert spans + cutter.finish() == windows_of(times, window_sec, stride_sec)


def test_cutter_needs_the_frames_of_one_window():
    cutter = WindowCutter(0.5, 3)
    for place in range(1000):
        cutter.add(place / 100)
        cutter.complete_by(place / 100)
        assert place - cutter.first_needed <= 50


def test_long_pause_has_no_windows():
    spans = windows_of([0, 0.1, 0.2, 1e7, 1e7 + 0.1, 1e7 + 0.2], 1e6, 0.5e6)
    assert [s[2:] for s in spans] == [(0, 3), (3, 3)]
    cutter = WindowCutter(1, 1)
    for time in (0.0, 1e12, 1e12 + 0.5):  # a loop over all windows would take hours
        cutter.add(time)
        cutter.complete_by(time)
    assert cutter.finish()[0].count == 2


@pytest.mark.parametrize(
    ('window_sec', 'stride_sec', 'message'),
    [
        (0, 1, 'window_sec=0 must be a positive'),
        (1, -2, 'stride_sec=-2 must be a positive'),
        (np.nan, 1, 'window_sec=nan must be a positive'),
        (np.inf, 1, 'window_sec=inf must be a positive'),
        (0.03, 1, r'window_sec=0.03 is shorter than a frame, which lasts 0.1 s'),
        (1, 0.03, r'stride_sec=0.03 is shorter than a frame'),
    ],
)
def test_impossible_windows_are_refused(window_sec, stride_sec, message):
    with pytest.raises(UserError, match=message):
        check_windows(window_sec, stride_sec, 0.1)
    with pytest.raises(VideoError, match=f'a.mp4: {message}'):
        windows_of(np.arange(9) / 10, window_sec, stride_sec)


def test_times_must_ascend():
    cutter = WindowCutter(1, 1)
    cutter.add(2.0)
    with pytest.raises(UserError, match=r'1\.5 s follows 2\.0 s'):
        cutter.add(1.5)
