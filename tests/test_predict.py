import dataclasses
import json
import shutil
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from python_process import run_python

from vivit_jax.model_card import ModelCard
from vivit_jax.models.registry import create_model
from vivit_jax.predict import Predictor
from vivit_jax.train.checkpoints import Checkpoints
from vivit_jax.train.state import TrainState
from vivit_jax.video.crops import Crops
from vivit_jax.video.preprocessing import Preprocessing, normalize, to_unit_range
from vivit_jax.video.sampling import sample_view_frames
from vivit_jax.video.synthetic import write_video
from vivit_jax.video.video_reader import VideoReader

ROOT = Path(__file__).parents[1]
SPEC = Preprocessing(num_frames=4, frame_stride=2, short_side=16, crop_size=16)
LABELS = ('clap', 'jump', 'run')
TWO_LABELS = {'verb': ('cut', 'fry', 'wash'), 'noun': ('egg', 'onion')}
MODEL = {
    'name': 'vivit_fe',
    'num_classes': 3,
    'hidden_size': 8,
    'num_layers': 1,
    'num_heads': 2,
    'mlp_dim': 8,
    'tubelet_size': (2, 8, 8),
    'temporal_num_layers': 1,
}


def random_params(spec, **changes):
    keywords = {**MODEL, **changes}
    model = create_model(keywords.pop('name'), **keywords)
    shapes = jax.eval_shape(
        model.init, jax.random.key(0), jnp.zeros((1, spec.num_frames, 16, 16, 3))
    )['params']
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    drawn = [jax.random.normal(k, x.shape) * 0.3 for k, x in zip(keys, leaves, strict=True)]
    return model, jax.tree.unflatten(tree, drawn)


def save_run(folder, spec=SPEC, label_names=LABELS, **changes):
    params = random_params(spec, **changes)[1]
    card = ModelCard({**MODEL, **changes}, spec, label_names)
    checkpoints = Checkpoints(folder / 'checkpoints', 1, 0)
    checkpoints.save(TrainState(jnp.int32(3), params, {}), card, {})
    checkpoints.close()
    return folder


@pytest.fixture(scope='module')
def run_folder(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp('run'))


@pytest.fixture(scope='module')
def two_head_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('two_heads')
    return save_run(folder, label_names=TWO_LABELS, num_classes={'verb': 3, 'noun': 2})


def write_noise(path, num_frames, size=(24, 32)):
    video = np.random.default_rng(0).integers(0, 256, (num_frames, *size, 3), np.uint8)
    write_video(path, video, rate=10)
    return path


def predict(run_folder, *arguments):
    command = [sys.executable, '-m', 'vivit_jax.predict', f'--checkpoint={run_folder}']
    return run_python([*command, *map(str, arguments)])


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


def brute_force_top(probabilities):
    """Every action with its product, best first."""
    products = {
        f'{verb} + {noun}': probabilities['verb'][i] * probabilities['noun'][j]
        for i, verb in enumerate(TWO_LABELS['verb'])
        for j, noun in enumerate(TWO_LABELS['noun'])
    }
    return sorted(products.items(), key=lambda item: -item[1])


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


@pytest.mark.slow
def test_command_shows_actions_and_heads(tmp_path, two_head_folder):
    video = write_noise(tmp_path / 'video.mp4', 14)
    prediction = Predictor(two_head_folder)(video)
    done = predict(two_head_folder, '--json', '--top_k=2', video)
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    actions = brute_force_top(prediction.probabilities)
    assert [entry['label'] for entry in line['top']] == [label for label, _ in actions[:2]]
    assert list(line['heads']) == ['verb', 'noun']
    assert {len(entries) for entries in line['heads'].values()} == {2}
    assert [window['heads'].keys() for window in line['windows']] == [{'verb', 'noun'}] * 2
    first = brute_force_top(prediction.windows[0].probabilities)[0]
    assert line['windows'][0]['top'][0]['label'] == first[0]
    assert line['windows'][0]['top'][0]['score'] == pytest.approx(first[1], rel=1e-4)

    title, action, verb, best_verb, noun, best_noun, *windows = predict(
        two_head_folder, '--top_k=1', video
    ).stdout.splitlines()
    assert title.endswith('video.mp4')
    assert action.endswith(actions[0][0])
    assert (verb, noun) == ('  verb', '  noun')
    assert best_verb.split()[-1] in TWO_LABELS['verb']
    assert best_noun.split()[-1] in TWO_LABELS['noun']
    assert len(windows) == 2


@pytest.mark.slow
def test_bad_videos_are_reported_and_the_others_go_on(tmp_path, run_folder):
    good = write_noise(tmp_path / 'good.mp4', 8)
    empty = tmp_path / 'empty.mp4'
    empty.touch()
    cut = tmp_path / 'cut.mp4'
    cut.write_bytes(good.read_bytes()[:700])
    last = shutil.copy(good, tmp_path / 'last one.mp4')
    features = tmp_path / 'features.npz'
    done = predict(
        run_folder, '--json', '--top_k=2', f'--features={features}', good, empty, cut, last
    )
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line['video'] for line in lines] == [str(p) for p in (good, empty, cut, last)]
    assert 'empty' in lines[1]['error'] and str(empty) in lines[1]['error']
    assert str(cut) in lines[2]['error']
    assert lines[0]['top'] == lines[3]['top'] and len(lines[0]['top']) == 2
    assert len(lines[0]['windows']) == 2
    assert lines[0].keys() == {
        'video',
        'top',
        'windows',
    }  # with a single head, the output does not mention heads
    saved = np.load(features)
    assert saved['videos'].tolist() == [str(good), str(last)]
    assert saved['features'].shape == (2, 8)


@pytest.mark.slow
def test_readable_output_names_labels_and_times(tmp_path, run_folder):
    done = predict(run_folder, '--top_k=1', write_noise(tmp_path / 'long.mp4', 20))
    assert done.returncode == 0, done.stderr
    title, best, *windows = done.stdout.splitlines()
    assert title.endswith('long.mp4')
    assert best.split()[-1] in LABELS
    assert [line.split()[0] for line in windows] == ['0.00', '0.70', '1.30']


@pytest.mark.parametrize('arguments', [['video.mp4'], []], ids=['no checkpoint', 'no video'])
def test_wrong_use_is_one_line(tmp_path, run_folder, arguments):
    folder = run_folder if not arguments else tmp_path / 'nothing'
    done = predict(folder, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith('Error: ') and len(done.stderr.splitlines()) == 1
