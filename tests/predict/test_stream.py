import threading

import numpy as np
import pytest
from small_runs import write_noise

from vivit_jax.errors import UserError
from vivit_jax.predictor import Predictor
from vivit_jax.video.stream import Stream, open_stream
from vivit_jax.video.video_reader import VideoReader


@pytest.fixture(scope='module', params=[1, 3], ids=['batch 1', 'batch 3'])
def predictor(request, run_folder):
    return Predictor(run_folder, batch_size=request.param)


@pytest.fixture(scope='module')
def path(tmp_path_factory):
    return write_noise(tmp_path_factory.mktemp('video') / 'a.mp4', 45)


def assert_equal(found, expected):
    assert len(found) == len(expected) > 2
    for window, other in zip(found, expected, strict=True):
        assert (window.start_sec, window.end_sec) == (other.start_sec, other.end_sec)
        np.testing.assert_array_equal(window.probabilities, other.probabilities)
        np.testing.assert_array_equal(window.features, other.features)
        assert window.dropped == 0


@pytest.mark.parametrize('windows', [{'window_sec': 1}, {'window_sec': 1.7, 'stride_sec': 0.4}])
def test_stream_of_a_file_gives_its_windows_bit_for_bit(predictor, path, windows):
    assert_equal(
        list(predictor.stream(open_stream(str(path)), **windows)),
        predictor(path, **windows).windows,
    )


def test_stream_of_arrays_gives_the_windows_of_the_array(predictor, path):
    with VideoReader(path) as video:
        frames, times = video.read(range(45)), video.timestamps_sec
    expected = predictor(frames, fps=10, window_sec=1).windows
    assert_equal(list(predictor.stream(iter(frames), fps=10, window_sec=1)), expected)
    assert_equal(list(predictor.stream(zip(times, frames, strict=True), window_sec=1)), expected)


def test_slow_model_drops_windows_of_a_live_stream_and_counts_them(predictor, path):
    with VideoReader(path) as video:
        frames = video.read(range(45))
    all_read = threading.Event()

    def camera():
        yield from ((number / 10, frame) for number, frame in enumerate(frames))
        all_read.set()

    found = []
    for window in predictor.stream(Stream(camera(), is_live=True), window_sec=0.5):
        all_read.wait(10)  # the model is busy until the camera is done
        found.append(window)
    assert len(found) <= 3 and sum(window.dropped + 1 for window in found) == 9
    expected = {w.start_sec: w for w in predictor(frames, fps=10, window_sec=0.5).windows}
    for window in found:
        np.testing.assert_array_equal(
            window.probabilities, expected[window.start_sec].probabilities
        )
    assert found[-1].start_sec == max(expected)


@pytest.mark.parametrize(
    ('keywords', 'message'),
    [
        ({'window_sec': 0}, 'window_sec=0 must be a positive'),
        ({'window_sec': 1, 'stride_sec': -1}, 'stride_sec=-1 must be a positive'),
        ({'window_sec': 0.05, 'fps': 10}, 'window_sec=0.05 is shorter than a frame'),
    ],
)
def test_wrong_windows_are_refused_before_a_frame_is_read(predictor, keywords, message):
    def frames():
        raise AssertionError('a frame was read')
        yield

    with pytest.raises(UserError, match=message):
        predictor.stream(frames(), **keywords)


@pytest.mark.parametrize(
    ('frames', 'message'),
    [
        (iter(np.zeros((9, 8, 8, 3), np.uint8)), 'frames without times need fps'),
        ('a.mp4', r"give vivit_jax\.video\.stream\.open_stream\('a\.mp4'\)"),
    ],
    ids=['frames', 'path'],
)
def test_stream_of_something_else_says_what_to_give(predictor, frames, message):
    with pytest.raises(UserError, match=message):
        list(predictor.stream(frames, window_sec=1))
