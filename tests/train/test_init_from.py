"""Runs that start from weights, each in its own process."""

import sys
from pathlib import Path
from types import SimpleNamespace

import flax.traverse_util
import jax
import numpy as np
import pytest
from python_process import run_python

from vivit_jax.config.load import check_ranges
from vivit_jax.config.schema import default_config
from vivit_jax.errors import UserError
from vivit_jax.heads import numbered_labels
from vivit_jax.model_card import ModelCard
from vivit_jax.models.registry import create_model
from vivit_jax.models.variables import abstract_params
from vivit_jax.train.first_state import read_start_variables
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.weights.load import load_checkpoint
from vivit_jax.weights.vivit_jax_npz import write_npz

ROOT = Path(__file__).parents[2]

TINY = [
    '--config=configs/kinetics400_fe.py:runlocal',
    '--config.model.dtype=float32',
    '--config.data.synthetic.num_train=24',
    '--config.data.synthetic.num_val=7',
    '--config.data.synthetic.num_test=5',
    '--config.data.synthetic.num_frames=10',
    '--config.data.num_workers=0',  # starting them takes seconds
    '--config.train.num_steps=2',
    '--config.train.warmup_steps=0',
    '--config.train.checkpoint_every_steps=1',
    '--config.eval.test_at_end=False',
]


@pytest.fixture(scope='module')
def image_vit(tmp_path_factory):
    """A file with a ViT for images of 1000 classes, of the sizes of `:runlocal`."""
    card = ModelCard(
        {
            'name': 'vivit_joint',
            'tokenizer': 'uniform_frames',
            'num_sampled_frames': 1,
            'tubelet_size': (1, 8, 8),
            'hidden_size': 48,
            'num_layers': 2,
            'num_heads': 4,
            'mlp_dim': 96,
            'num_classes': 1000,
        },
        Preprocessing(num_frames=1, short_side=32, crop_size=32),
        numbered_labels(1000),
    )
    rng = np.random.default_rng(0)
    shapes = abstract_params(create_model(**card.model), card.preprocessing.clip_shape)
    params = jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(np.float32), shapes)
    path = tmp_path_factory.mktemp('weights') / 'vit.npz'
    write_npz(card, params, path)
    return path, flax.traverse_util.flatten_dict(params, sep='/')


def run(tmp_path, cache_dir, *more):
    command = [sys.executable, '-m', 'vivit_jax.main', f'--workdir={tmp_path / "run"}', *TINY]
    return run_python([*command, f'--config.data.cache_dir={cache_dir}', *more])


@pytest.mark.slow
def test_run_starts_from_the_weights_and_goes_on_without_them(tmp_path, cache_dir, image_vit):
    path, vit = image_vit
    start = (f'--config.init_from={path}', '--config.train.learning_rate=0.0')
    done = run(tmp_path, cache_dir, *start)
    assert done.returncode == 0, done.stderr
    assert 'vit.npz: vivit_jax .npz' in done.stderr
    report = (tmp_path / 'run/init_report.txt').read_text()
    assert report.strip() in done.stderr.replace('\r', '')
    for line in ('inflated  embedding/kernel', 'resized   SpatialTransformer/posembed_input'):
        assert line in report

    # With a learning rate of zero the weights stay as they started.
    _, variables, spec, label_names = load_checkpoint(tmp_path / 'run')
    params = variables['params']
    kernel = params['embedding']['kernel']
    np.testing.assert_array_equal(kernel[1], vit['embedding/kernel'])
    assert not kernel[0].any()
    block = params['SpatialTransformer']['encoderblock_1']['MlpBlock_0']['Dense_0']['kernel']
    np.testing.assert_array_equal(
        block, vit['Transformer/encoderblock_1/MlpBlock_0/Dense_0/kernel']
    )
    np.testing.assert_array_equal(params['cls_SpatialTransformer'], vit['cls'])
    assert not params['output_projection']['kernel'].any()

    # All zero, the classifier cannot be tested by mistake; going on needs no weights any more.
    evaluate = ('--mode=evaluate', '--config.eval.views=1x1')
    done = run(tmp_path, cache_dir, *start, *evaluate)
    assert done.returncode == 2
    assert 'never trained (output_projection)' in done.stderr
    assert '--config.eval.allow_untrained_head=True' in done.stderr

    # A file is tested like a run folder.
    card = ModelCard(
        {
            'name': 'vivit_fe',
            'num_classes': 8,
            'hidden_size': 48,
            'num_layers': 2,
            'num_heads': 4,
            'mlp_dim': 96,
            'tubelet_size': (2, 8, 8),
            'temporal_num_layers': 1,
        },
        spec,
        label_names,
    )
    write_npz(card, params, tmp_path / 'mine.npz')
    allowed = (f'--checkpoint={tmp_path / "mine.npz"}', '--config.eval.allow_untrained_head=True')
    done = run(tmp_path, cache_dir, *evaluate, *allowed)
    assert done.returncode == 0, done.stderr
    assert 'Warning: the loss is ln(8)' in done.stderr
    assert (tmp_path / 'run/evaluation/test_1x1_mine.npz').exists()

    done = run(tmp_path, cache_dir, start[1], '--config.init_from=gone.npz')
    assert done.returncode == 0, done.stderr
    assert 'All 2 steps are done' in done.stderr


@pytest.mark.slow
def test_weights_that_do_not_fit_leave_no_run_behind(tmp_path, cache_dir, image_vit):
    start = f'--config.init_from={image_vit[0]}'
    done = run(tmp_path, cache_dir, start, '--config.init.reinit=()', '--config.model.mlp_dim=64')
    assert done.returncode == 2
    assert 'Traceback' not in done.stderr
    assert '--config.init.reinit=head' in done.stderr
    assert 'MlpBlock_0/Dense_0/kernel' in done.stderr
    assert not (tmp_path / 'run').exists()


def test_weights_that_are_not_there_are_named(tmp_path, cache_dir):
    done = run(tmp_path, cache_dir, '--config.init_from=gone.npz')
    assert done.returncode == 2
    assert f'no file or folder {ROOT / "gone.npz"}' in done.stderr
    assert not (tmp_path / 'run').exists()


def test_streams_start_from_the_keys_for_each(tmp_path):
    spec = Preprocessing(num_frames=2, short_side=8, crop_size=8)
    sizes = {'hidden_size': 8, 'num_layers': 1, 'num_heads': 2, 'mlp_dim': 8}
    keywords = {'name': 'vivit_joint', 'tubelet_size': (2, 4, 4), 'num_classes': 2, **sizes}
    cards = {
        modality: ModelCard({**keywords, 'modality': modality}, spec, ('a', 'b'))
        for modality in ('rgb', 'depth', 'rgbd')
    }
    config = default_config('vivit_joint')
    config.model.modality = 'rgbd'
    config.init_from = str(tmp_path / 'rgb.npz')
    for number, modality in enumerate(('rgb', 'depth')):
        shapes = abstract_params(create_model(**cards[modality].model), spec.clip_shape)
        params = jax.tree.map(lambda x, n=number: np.full(x.shape, n + 1, np.float32), shapes)
        write_npz(cards[modality], params, tmp_path / f'{modality}.npz')
    model = create_model(**cards['rgbd'].model)
    programs = SimpleNamespace(config=config, model=model, spec=spec)
    for depth_from, expected in (('', 1), (str(tmp_path / 'depth.npz'), 2)):
        config.init.depth_from = depth_from
        check_ranges(config)
        variables, _ = read_start_variables(programs, cards['rgbd'])
        for stream, value in (('rgb', 1), ('depth', expected)):
            leaves = jax.tree.leaves(variables['params'][stream])
            assert all((x == value).all() for x in leaves)
    config.init_from = ''
    with pytest.raises(UserError, match=r'init.depth_from=.* the weights for RGB in init_from'):
        check_ranges(config)
