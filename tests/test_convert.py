"""The command that converts weights, as a user types it."""

import sys
from pathlib import Path

import flax.traverse_util
import jax
import numpy as np
import pytest
from python_process import run_python

from vivit_jax.model_card import ModelCard
from vivit_jax.models.registry import create_model
from vivit_jax.models.variables import abstract_params
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.weights.load import load_checkpoint, read_weights
from vivit_jax.weights.vivit_jax_npz import write_npz

ROOT = Path(__file__).parents[1]
SIZES = {'hidden_size': 16, 'num_layers': 2, 'num_heads': 2, 'mlp_dim': 24}
IMAGE = {
    'name': 'vivit_joint',
    'tokenizer': 'uniform_frames',
    'num_sampled_frames': 1,
    'tubelet_size': (1, 8, 8),
}


def make(path, model, spec, label_names):
    keywords = {**SIZES, **model, 'num_classes': len(label_names)}
    card = ModelCard(keywords, spec, label_names, typical_sec=2.5, is_multi_label=True)
    rng = np.random.default_rng(0)
    shapes = abstract_params(create_model(**card.model), spec.clip_shape)
    params = jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), shapes)
    write_npz(card, params, path)
    return params


@pytest.fixture(scope='module')
def video(tmp_path_factory):
    """A file with a joint model and its parameters."""
    path = tmp_path_factory.mktemp('video') / 'video.npz'
    spec = Preprocessing(num_frames=4, frame_stride=3, short_side=20, crop_size=16)
    model = {'name': 'vivit_joint', 'tubelet_size': (2, 8, 8), 'dtype': 'bfloat16'}
    return path, make(path, model, spec, ('jump', 'run', 'ßit'))


@pytest.fixture(scope='module')
def image(tmp_path_factory):
    """A file with a ViT for images."""
    path = tmp_path_factory.mktemp('image') / 'image.npz'
    spec = Preprocessing(num_frames=1, frame_stride=1, short_side=16, crop_size=16)
    return path, make(path, IMAGE, spec, tuple('abcde'))


def convert(source, output, to, *more):
    flags = f'--source={source}', f'--output={output}', f'--to={to}'
    return run_python([sys.executable, '-m', 'vivit_jax.convert', *flags, *more])


def refused(*args):
    done = convert(*args)
    assert done.returncode == 2
    assert 'Traceback' not in done.stderr
    return done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ('to', 'name', 'framework'),
    [
        ('orbax', 'orbax', 'JAX'),
        ('npz', 'w.npz', 'JAX'),
        ('torch', 'w.safetensors', 'PyTorch'),
        ('huggingface', 'folder', 'transformers'),
    ],
)
def test_there_and_back_the_bits_and_the_card_are_the_same(tmp_path, video, to, name, framework):
    if framework != 'JAX':
        pytest.importorskip('torch', reason='needs PyTorch')
    if framework == 'transformers':
        pytest.importorskip('transformers', reason='needs transformers')
    path, params = video
    done = convert(path, tmp_path / name, to, '--verify')
    assert done.returncode == 0, done.stderr
    assert 'Found vivit_jax .npz: vivit_joint' in done.stdout
    assert '2x2x2 tokens, 3 classes' in done.stdout
    assert f'output in {framework}' in done.stdout
    report = (tmp_path / f'{name}.report.txt').read_text()
    assert 'copied' in report and 'new' not in report

    card = read_weights(tmp_path / name).card
    assert (card.typical_sec, card.is_multi_label) == (2.5, True)
    model, variables, spec, label_names = load_checkpoint(tmp_path / name)
    assert (model.spec.num_layers, model.spec.tubelet_size) == (2, (2, 8, 8))
    assert spec == Preprocessing(num_frames=4, frame_stride=3, short_side=20, crop_size=16)
    assert label_names == ('jump', 'run', 'ßit')
    assert jax.tree.structure(variables['params']) == jax.tree.structure(params)
    jax.tree.map(np.testing.assert_array_equal, variables['params'], params)


@pytest.mark.slow
def test_two_runs_become_a_model_of_rgb_and_depth(tmp_path, video):
    spec = Preprocessing(num_frames=4, frame_stride=3, short_side=20, crop_size=16)
    model = {'name': 'vivit_joint', 'tubelet_size': (2, 8, 8), 'dtype': 'bfloat16'}
    model |= {'modality': 'depth', 'depth_channels': 1}
    depth = make(tmp_path / 'depth.npz', model, spec, ('jump', 'run', 'ßit'))
    done = convert(
        video[0], tmp_path / 'both', 'orbax', f'--depth={tmp_path / "depth.npz"}', '--verify'
    )
    assert done.returncode == 0, done.stderr
    assert 'Verified: output in JAX' in done.stdout and 'Verified: source' not in done.stdout
    report = (tmp_path / 'both.report.txt').read_text()
    assert 'copied  rgb/embedding/kernel' in report and 'copied  depth/embedding/kernel' in report
    found, variables, preprocessing, label_names = load_checkpoint(tmp_path / 'both')
    assert (found.spec.modality, found.spec.depth_channels) == ('rgbd', 1)
    assert (preprocessing, label_names) == (spec, ('jump', 'run', 'ßit'))
    for stream, params in (('rgb', video[1]), ('depth', depth)):
        jax.tree.map(np.testing.assert_array_equal, variables['params'][stream], params)
    same = f'--depth={video[0]}'
    assert 'a model for depth is needed' in refused(video[0], tmp_path / 'x.npz', 'npz', same)


@pytest.mark.slow
def test_image_vit_becomes_a_model_for_video_of_its_sizes(tmp_path, image):
    path, vit = image
    settings = ('--reinit=head', 'num_classes=3', 'tubelet_size=4,8,8', 'temporal_num_layers=1')
    more = ('--model=vivit_fe', '--frames=8', '--crop_size=24', *settings)
    done = convert(path, tmp_path / 'fe.npz', 'npz', *more)
    assert done.returncode == 0, done.stderr
    assert 'Untrained, all zero: output_projection' in done.stdout
    report = (tmp_path / 'fe.npz.report.txt').read_text()
    assert 'central frame of 4' in report and 'grid 2x2 -> 3x3' in report
    model, variables, spec, _ = load_checkpoint(tmp_path / 'fe.npz')
    assert type(model).__name__ == 'FactorizedEncoder'
    assert (model.spec.hidden_size, model.spec.num_heads, model.spec.temporal_num_layers) == (
        16,
        2,
        1,
    )
    assert spec.clip_shape == (8, 24, 24)
    params = flax.traverse_util.flatten_dict(variables['params'], sep='/')
    kernel = params['embedding/kernel']
    np.testing.assert_array_equal(kernel[2], vit['embedding']['kernel'])
    assert kernel.shape[0] == 4 and params['output_projection/kernel'].shape == (16, 3)


@pytest.mark.slow
def test_labels_get_names_and_pixels_another_range(tmp_path, video):
    (tmp_path / 'classes.txt').write_text('one\ntwo\nthree\n')
    labels = f'--labels={tmp_path / "classes.txt"}'
    done = convert(video[0], tmp_path / 'w.npz', 'npz', labels, '--value_range=0,1')
    assert done.returncode == 0, done.stderr
    _, _, spec, label_names = load_checkpoint(tmp_path / 'w.npz')
    assert label_names == ('one', 'two', 'three')
    assert spec.value_range == (0, 1)
    (tmp_path / 'classes.txt').write_text('one\ntwo\n')
    message = refused(video[0], tmp_path / 'v.npz', 'npz', f'--labels={tmp_path / "classes.txt"}')
    assert '2 classes' in message and '3' in message
    assert not (tmp_path / 'v.npz').exists()


def test_new_classes_must_be_named(tmp_path, video):
    message = refused(video[0], tmp_path / 'w.npz', 'npz', 'num_classes=5')
    assert 'output_projection/kernel' in message and '--reinit=head' in message
    assert not (tmp_path / 'w.npz').exists()


@pytest.mark.parametrize(
    ('more', 'message'),
    [
        (('--model=vivit_ef',), "did you mean 'vivit_fe'"),
        (('num_layer=3',), "did you mean 'num_layers'"),
        (('--value_range=1',), '--value_range=1 must be two numbers'),
        (('num_classes=three', '--reinit=head'), 'num_classes=three must be a whole number'),
        (('--crop_size=20',), 'height=20'),
    ],
)
def test_mistakes_are_explained(tmp_path, video, more, message):
    assert message in refused(video[0], tmp_path / 'w.npz', 'npz', *more)


def test_output_must_be_new_and_of_the_right_kind(tmp_path, video):
    assert 'exists already' in refused(video[0], tmp_path, 'orbax')
    assert 'must end in .safetensors' in refused(video[0], tmp_path / 'w.npz', 'torch')


def test_source_must_be_something_known(tmp_path):
    assert 'no file or folder' in refused(tmp_path / 'gone', tmp_path / 'w.npz', 'npz')
    (tmp_path / 'folder').mkdir()
    message = refused(tmp_path / 'folder', tmp_path / 'w.npz', 'npz')
    assert 'no run folder, no Hugging Face folder' in message
    np.savez(tmp_path / 'other.npz', x=np.zeros(3))
    message = refused(tmp_path / 'other.npz', tmp_path / 'w.npz', 'npz')
    assert 'holds 1 arrays (x' in message
