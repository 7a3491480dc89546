import dataclasses

import numpy as np
import pytest
from small_runs import SPEC, save_run, write_noise

from vivit_jax.errors import UserError
from vivit_jax.predictor import Prediction, Predictor
from vivit_jax.video.frame_reader import VideoError
from vivit_jax.video.video_reader import VideoReader

LENGTHS = (7, 20, 14, 8, 31)  # frames: 1, 3, 2, 2 and 5 windows


@pytest.fixture(scope='module')
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp('videos')
    return [write_noise(folder / f'{length}.mp4', length) for length in LENGTHS]


@pytest.fixture(scope='module')
def predictor(run_folder):
    return Predictor(run_folder)


@pytest.fixture(scope='module')
def by_three(run_folder):
    return Predictor(run_folder, batch_size=3)


def assert_same(found, expected, exactly=False):
    times, expected_times = (
        [(window.start_sec, window.end_sec) for window in prediction.windows]
        for prediction in (found, expected)
    )
    np.testing.assert_allclose(times, expected_times, atol=1e-9)
    for name in ('probabilities', 'features'):
        pairs = [(getattr(found, name), getattr(expected, name))]
        windows = zip(found.windows, expected.windows, strict=True)
        pairs += [(getattr(a, name), getattr(b, name)) for a, b in windows]
        for a, b in pairs:
            if exactly:
                np.testing.assert_array_equal(a, b)
            else:
                np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_list_is_predicted_in_batches_like_each_video(predictor, by_three, paths, monkeypatch):
    sizes, forward = [], by_three._forward
    monkeypatch.setattr(
        by_three,
        '_forward',
        lambda variables, pixels: sizes.append(len(pixels['rgb'])) or forward(variables, pixels),
    )
    predictions = by_three(paths)
    assert sizes == [3] * 5  # 13 windows; the last batch is filled up
    for prediction, path in zip(predictions, paths, strict=True):
        assert_same(prediction, predictor(path))
    assert by_three([]) == []


def test_answer_does_not_depend_on_the_batch(by_three, paths):
    for prediction, path in zip(by_three(paths), paths, strict=True):
        assert_same(prediction, by_three(path), exactly=True)


def test_bytes_and_arrays_are_predicted_like_their_file(tmp_path, predictor):
    path = write_noise(tmp_path / 'a.mp4', 20, (16, 16))  # arrays are exact where nothing resizes
    with VideoReader(path) as video:
        frames = video.read(range(20))
    expected = predictor(path)
    for prediction in (
        predictor(path.read_bytes()),
        predictor(str(path)),
        predictor(frames, fps=10),
        predictor(iter(frames), fps=10),
        *predictor([path, path.read_bytes(), frames], fps=10),
    ):
        assert_same(prediction, expected, exactly=True)


def test_unusable_videos_take_their_places(tmp_path, by_three, paths):
    missing = tmp_path / 'missing.mp4'
    (tmp_path / 'empty.mp4').touch()
    videos = [missing, paths[0], missing, tmp_path / 'empty.mp4', *paths[1:3], b'junk']
    found = list(by_three.predict_each(iter(videos)))
    is_good = [isinstance(answer, Prediction) for answer in found]
    assert is_good == [False, True, False, False, True, True, False]
    assert 'missing.mp4: no such file' in str(found[0])
    assert 'empty.mp4: the file is empty' in str(found[3])
    assert str(found[6]).startswith('video 6: not a video file')
    for place in (1, 4, 5):
        assert_same(found[place], by_three(videos[place]))
    with pytest.raises(VideoError, match=r'missing\.mp4'):
        by_three([paths[0], missing])


@pytest.mark.parametrize(
    ('video', 'keywords', 'message'),
    [
        (np.zeros((9, 8, 8, 3), np.uint8), {}, 'frames need fps'),
        (np.zeros((9, 8, 8, 3)), {'fps': 10}, 'must be uint8'),
        (
            np.zeros((8, 8, 3), np.uint8),
            {'fps': 10},
            r'shape \(8, 8, 3\), but must be \[t h w 3\]: .* np\.stack',
        ),
        (iter(()), {'fps': 10}, 'has no frames'),
        (3, {}, 'of type int, but must be a path'),
        ('a.mp4', {'stride_sec': 1}, 'stride_sec=1 needs window_sec'),
        ('a.mp4', {'window_sec': -1}, 'window_sec=-1 must be a positive'),
    ],
)
def test_wrong_arguments_are_named(predictor, video, keywords, message):
    with pytest.raises(UserError, match=message):
        predictor(video, **keywords)


def test_batch_size_is_positive(run_folder):
    with pytest.raises(UserError, match='batch_size=0 must be at least 1'):
        Predictor(run_folder, batch_size=0)


def test_windows_of_seconds_are_sampled_like_videos_of_that_length(predictor, tmp_path):
    path = write_noise(tmp_path / 'a.mp4', 35, (16, 16))
    prediction = predictor(path, window_sec=1.5, stride_sec=1)
    times = [(w.start_sec, w.end_sec) for w in prediction.windows]
    np.testing.assert_allclose(times, [(0, 1.5), (1, 2.5), (2, 3.5)], atol=1e-9)
    with VideoReader(path) as video:
        frames = video.read(range(35))
    for number, window in enumerate(prediction.windows):
        # Frames 10 k to 10 k + 14, of which the clip takes the seven in the middle.
        middle = frames[10 * number + 4 : 10 * number + 11]
        [expected] = predictor(middle, fps=10).windows
        np.testing.assert_array_equal(window.probabilities, expected.probabilities)
        np.testing.assert_array_equal(window.features, expected.features)
    mean = np.mean([w.probabilities for w in prediction.windows], axis=0)
    np.testing.assert_allclose(prediction.probabilities, mean, atol=1e-6)


def test_windows_shorter_than_a_frame_are_an_error_of_the_video(predictor, paths):
    with pytest.raises(VideoError, match=r'7\.mp4: window_sec=0\.05 is shorter than a frame'):
        predictor(paths[0], window_sec=0.05)


@pytest.mark.parametrize('typical_sec', [0.5, None])
def test_long_video_with_a_single_answer_has_a_note(tmp_path, typical_sec):
    spec = dataclasses.replace(SPEC, sampling='segments')
    predict = Predictor(save_run(tmp_path / 'run', spec, typical_sec=typical_sec))
    long, short = (write_noise(tmp_path / f'{n}.mp4', n) for n in (60, 14))
    [note] = predict(long).notes
    assert note.startswith('lasts 6 s; the model ') and 'window_sec' in note
    assert ('about 0.5 s' in note) == (typical_sec is not None)
    assert predict(short).notes == ()
    prediction = predict(long, window_sec=0.5)
    assert len(prediction.windows) == 12 and prediction.notes == ()
