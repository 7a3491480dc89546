import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_runs import (
    LABELS,
    SPEC,
    TWO_LABELS,
    brute_force_top,
    random_params,
    save_run,
    write_noise,
)

from vivit_jax.predictor import Predictor
from vivit_jax.video.crops import Crops
from vivit_jax.video.preprocessing import Preprocessing, normalize, to_unit_range
from vivit_jax.video.sampling import sample_view_frames
from vivit_jax.video.video_reader import VideoReader


def test_prediction_equals_the_model_on_the_pixels_of_the_checkpoint(tmp_path, run_folder):
    path = write_noise(tmp_path / 'video.mp4', 7)
    prediction = Predictor(run_folder)(path)
    with VideoReader(path) as video:  # 24x32 pixels to 16x21, the middle 16x16
        crops = Crops(16, 21, ((0, 2),), (16, 16))
        clip = video.read([0, 2, 4, 6], lambda height, width: crops)[0]
    model, params = random_params(SPEC)
    output = model.apply({'params': params}, normalize(to_unit_range(jnp.array(clip)), SPEC)[None])
    np.testing.assert_allclose(
        prediction.probabilities, jax.nn.softmax(output.logits[0]), atol=1e-5
    )
    np.testing.assert_allclose(prediction.features, output.features[0], atol=1e-4)
    order = np.argsort(-prediction.probabilities)
    assert [label for label, _ in prediction.top(2)] == [LABELS[i] for i in order[:2]]


def test_prediction_resizes_with_the_interpolation_of_the_checkpoint(tmp_path):
    spec = dataclasses.replace(SPEC, interpolation='bicubic')
    path = write_noise(tmp_path / 'video.mp4', 7)
    prediction = Predictor(save_run(tmp_path / 'run', spec))(path)
    model, params = random_params(spec)

    def features(interpolation):
        crops = Crops(16, 21, ((0, 2),), (16, 16))
        with VideoReader(path) as video:
            clip = video.read([0, 2, 4, 6], lambda height, width: crops, interpolation)
        return model.apply({'params': params}, normalize(to_unit_range(clip), spec)).features[0]

    same, other = (
        np.abs(prediction.features - features(name)).max() for name in ('bicubic', 'bilinear')
    )
    assert same < 1e-4 and other > 5 * same and other > 3e-4


@pytest.mark.parametrize(
    ('length', 'spans'),
    [
        (1, [(0, 1)]),
        (7, [(0, 7)]),
        (8, [(0, 7), (1, 8)]),
        (14, [(0, 7), (7, 14)]),
        (20, [(0, 7), (7, 14), (13, 20)]),
    ],
)
def test_windows_cover_a_long_video(tmp_path, run_folder, length, spans):
    prediction = Predictor(run_folder)(write_noise(tmp_path / 'video.mp4', length))
    found = [(w.start_sec, w.end_sec) for w in prediction.windows]
    if length == 1:  # a single frame has no duration to tell
        assert found == [(0, 0)]
    else:
        np.testing.assert_allclose(found, np.array(spans) / 10, atol=1e-6)
    mean = np.mean([w.probabilities for w in prediction.windows], axis=0)
    np.testing.assert_allclose(prediction.probabilities, mean, atol=1e-6)


@pytest.mark.parametrize(('length', 'num_windows'), [(7, 1), (8, 1), (16, 2), (20, 3)])
def test_windows_leave_the_stride_as_it_is_where_short_videos_have_a_smaller_one(
    tmp_path, monkeypatch, length, num_windows
):
    spec = Preprocessing(
        num_frames=4, frame_stride=2, short_video='smaller_stride', short_side=16, crop_size=16
    )
    predictor, read = Predictor(save_run(tmp_path / 'run', spec)), []
    monkeypatch.setattr(
        'vivit_jax.video.clips.sample_view_frames',
        lambda *args: read.append(sample_view_frames(*args)) or read[-1],
    )
    predictor(write_noise(tmp_path / 'video.mp4', length))
    assert len(read) == num_windows
    stride = 2 if length >= 8 else 1
    for frames in read:
        np.testing.assert_array_equal(np.diff(frames), 3 * [stride])


def test_segments_take_one_window_over_all(tmp_path):
    spec = Preprocessing(num_frames=4, sampling='segments', short_side=16, crop_size=16)
    folder = save_run(tmp_path / 'run', spec)
    prediction = Predictor(folder)(write_noise(tmp_path / 'video.mp4', 40))
    assert len(prediction.windows) == 1


def test_prediction_of_two_heads_ranks_heads_and_actions(tmp_path, two_head_folder):
    prediction = Predictor(two_head_folder)(write_noise(tmp_path / 'video.mp4', 20))
    windows = prediction.windows
    assert len(windows) == 3
    for head, names in TWO_LABELS.items():
        mean = np.mean([window.probabilities[head] for window in windows], axis=0)
        np.testing.assert_allclose(prediction.probabilities[head], mean, atol=1e-6)
        assert mean.sum() == pytest.approx(1)
        expected = sorted(zip(names, mean, strict=True), key=lambda item: -item[1])
        found = prediction.top(9, head=head)
        assert [label for label, _ in found] == [label for label, _ in expected]
        np.testing.assert_allclose([p for _, p in found], [p for _, p in expected], rtol=1e-5)
    for window in (None, 1):
        source = prediction if window is None else windows[window]
        expected = brute_force_top(source.probabilities)
        found = prediction.top(4, window)
        assert [label for label, _ in found] == [label for label, _ in expected[:4]]
        np.testing.assert_allclose([p for _, p in found], [p for _, p in expected[:4]], rtol=1e-5)
        best = prediction.top(1, window, head='noun')[0][0]
        assert best == TWO_LABELS['noun'][source.probabilities['noun'].argmax()]
