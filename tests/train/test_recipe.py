"""The recipe of configs/finetune.py: what follows from weights and from the number of videos."""

import importlib.util
import logging
from pathlib import Path

import jax
import numpy as np
import pytest

from vivit_jax.config.choices import CHOICES, CHOSEN
from vivit_jax.config.load import flatten
from vivit_jax.errors import UserError
from vivit_jax.model_card import ModelCard
from vivit_jax.models.registry import create_model
from vivit_jax.models.variables import abstract_params
from vivit_jax.train.loop import Trainer
from vivit_jax.train.recipe import Recipe, complete
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.weights.load import read_weights
from vivit_jax.weights.vivit_jax_npz import write_npz

SIZES = {'hidden_size': 16, 'num_layers': 2, 'num_heads': 2, 'mlp_dim': 16}
IMAGE = {
    **SIZES,
    'name': 'vivit_joint',
    'tokenizer': 'uniform_frames',
    'num_sampled_frames': 1,
    'tubelet_size': (1, 8, 8),
    'layer_norm_eps': 1e-5,
}
VIDEO = {**SIZES, 'name': 'vivit_fsa', 'tubelet_size': (2, 8, 8), 'drop_path_rate': 0.4}
NAMES = ('clap', 'jump', 'run')


def get_config(argument=''):
    path = Path(__file__).parents[2] / 'configs/finetune.py'
    spec = importlib.util.spec_from_file_location('finetune', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(argument)


def _write(path, keywords, spec, label_names):
    card = ModelCard({**keywords, 'num_classes': len(label_names)}, spec, label_names)
    rng = np.random.default_rng(0)
    shapes = abstract_params(create_model(**card.model), spec.clip_shape)
    params = jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(np.float32), shapes)
    write_npz(card, params, path)
    return str(path)


@pytest.fixture(scope='module')
def image_vit(tmp_path_factory):
    spec = Preprocessing(num_frames=1, short_side=32, crop_size=32, value_range=(-2.0, 2.0))
    return _write(tmp_path_factory.mktemp('weights') / 'vit.npz', IMAGE, spec, ('a', 'b'))


@pytest.fixture(scope='module')
def video_vit(tmp_path_factory):
    spec = Preprocessing(num_frames=4, frame_stride=3, short_side=40, crop_size=32)
    return _write(tmp_path_factory.mktemp('weights') / 'run.npz', VIDEO, spec, NAMES)


def _complete(config, num_videos=100, names=NAMES, has_val=True):
    recipe = Recipe(config)
    recipe.complete_model()
    return list(recipe.complete_settings(num_videos, has_val, names))


@pytest.mark.parametrize('model', ['vivit_fe', 'vivit_joint', 'vivit_fsa', 'vivit_fdp'])
def test_image_vit_becomes_the_model_of_the_config(image_vit, model):
    config = get_config(model)
    config.init_from = image_vit
    config.preprocessing.crop_size = 24
    _complete(config)
    found = flatten(config)
    for keyword in (*SIZES, 'layer_norm_eps'):
        assert found[f'model.{keyword}'] == IMAGE[keyword]
    assert found['model.tubelet_size'] == [2, 8, 8] and found['model.tokenizer'] is None
    assert found['model.num_classes'] is None
    clip = {key: found[f'preprocessing.{key}'] for key in ('num_frames', 'crop_size', 'short_side')}
    assert clip == {'num_frames': 16, 'crop_size': 24, 'short_side': 24}
    assert found['preprocessing.sampling'] == 'segments'
    assert found['preprocessing.value_range'] == [-2.0, 2.0]


def test_model_for_videos_keeps_its_model_and_its_clips(video_vit):
    config = get_config('vivit_fsa')
    config.init_from = video_vit
    config.preprocessing.crop_size = 64
    _complete(config)
    assert config.model.tubelet_size == (2, 8, 8)
    assert config.model.drop_path_rate == 0.4  # and not what the recipe would choose
    spec = config.preprocessing
    assert (spec.num_frames, spec.frame_stride, spec.sampling) == (4, 3, 'strided')
    assert (spec.short_side, spec.crop_size) == (80, 64)


@pytest.mark.parametrize(
    ('num_videos', 'column', 'epochs'),
    [(20, 0, 60), (999, 0, 15), (1_000, 1, 15), (9_999, 1, 10), (10_000, 2, 10), (10**6, 2, 10)],
)
def test_settings_follow_from_the_number_of_videos(image_vit, num_videos, column, epochs):
    config = get_config()
    config.init_from = image_vit
    lines = _complete(config, num_videos)
    found = flatten(config)
    for key, choice in CHOICES.items():
        expected = choice[column]
        assert found[key] == (list(expected) if isinstance(expected, tuple) else expected), key
        assert f'{key}={expected}: {choice.reason}' in lines
    assert found['train.num_epochs'] == epochs
    assert len(lines) == len({line.partition('=')[0] for line in lines})
    # Nothing is left open.
    assert not [key for key in CHOSEN if found[key] is None]


def test_what_the_user_sets_stays(image_vit):
    config = get_config()
    config.init_from = image_vit
    config.train.update(learning_rate=7.0, num_steps=5, hold_fraction=0.3)
    config.augment.mixup_alpha = 0.25
    config.model.temporal_num_layers = 1
    lines = _complete(config)
    assert config.train.learning_rate == 7.0 and config.augment.mixup_alpha == 0.25
    assert config.train.num_epochs is None and config.model.temporal_num_layers == 1
    assert config.train.hold_fraction == 0.3 and config.train.hold
    assert not [line for line in lines if 'learning_rate' in line or 'num_epochs' in line]


def test_classifier_of_the_same_classes_is_kept_and_not_trained_first(video_vit):
    rate = CHOICES['train.learning_rate'].few
    for names, reinit, hold in ((NAMES, (), 0.0), (('a', 'b'), ('head',), 0.1)):
        config = get_config('vivit_fsa')
        config.init_from = video_vit
        _complete(config, names=names)
        assert (config.init.reinit, config.train.hold_fraction) == (reinit, hold)
        assert bool(config.train.hold) == bool(hold)
        assert config.train.learning_rate == (rate if hold else rate / 4)


def test_without_validation_there_is_no_early_stop(image_vit):
    config = get_config()
    config.init_from = image_vit
    _complete(config, has_val=False)
    assert config.train.early_stop_validations == 0


@pytest.mark.parametrize(
    ('given', 'fraction'),
    [
        ({'train_csv': 'x.csv'}, 0.2),
        ({'train_csv': 'x.csv', 'val_csv': 'y.csv'}, None),
        ({'train_csv': 'x.csv', 'val_fraction': 0.0}, 0.0),
        ({'root': 'videos'}, None),  # folders decide themselves
        ({'source': 'ssv2', 'root': 'videos'}, None),
    ],
)
def test_a_list_gives_a_part_for_validation(image_vit, given, fraction):
    config = get_config()
    config.init_from = image_vit
    config.data.update(given)
    Recipe(config).complete_model()
    assert config.data.val_fraction == fraction


def test_weights_that_the_config_cannot_take_are_errors(image_vit, video_vit):
    for argument, weights, message in (
        ('', '', r'starts from weights: give --config\.init_from'),
        ('', video_vit, r'is a vivit_fsa, .* --config=configs/finetune\.py:vivit_fsa'),
        ('v4d', image_vit, 'makes no v4d: it makes vivit_joint, vivit_fe'),
    ):
        config = get_config(argument)
        config.init_from = weights
        with pytest.raises(UserError, match=message):
            Recipe(config).complete_model()
    config = get_config()
    config.recipe = 'finetuning'
    with pytest.raises(UserError, match="recipe='finetuning' must be 'finetune' or ''"):
        complete(config)


def test_show_needs_the_number_of_videos(image_vit):
    config = get_config()
    config.update(init_from=image_vit)
    config.data.root = 'videos'
    with pytest.raises(UserError, match='number of training videos'):
        complete(config)
    first, *lines = complete(config, 283)
    assert first == 'Settings for 283 training videos (from --num_videos):'
    assert any(line.startswith('  train.learning_rate=') for line in lines)
    assert complete(config) == []  # it is complete


def test_training_says_what_it_chose_and_goes_on_without_the_weights(
    image_vit, cache_dir, tmp_path, caplog
):
    def train(**changes):
        config = get_config()
        config.init_from = image_vit
        config.preprocessing.update(num_frames=4, crop_size=16)
        config.data.update(source='synthetic', num_workers=0, cache_dir=str(cache_dir))
        config.data.synthetic.update(num_train=24, num_val=8, num_test=8, num_frames=10)
        config.train.update(batch_size=8, warmup_fraction=None, **changes)
        config.eval.update(batch_size=8, views='1x1')
        trainer = Trainer(config, tmp_path / 'run')
        assert trainer.run() == 0
        return config

    with caplog.at_level(logging.INFO):
        config = train(num_steps=4, hold_fraction=0.5)
    assert 'Settings for 24 training videos:' in caplog.text
    assert 'train.layer_decay=0.75: lower layers' in caplog.text
    assert config.recipe == ''
    params = read_weights(tmp_path / 'run').params
    assert np.any(params['output_projection']['kernel'])
    # The same config again is the same run.
    caplog.clear()
    with caplog.at_level(logging.INFO):
        train(num_steps=4, hold_fraction=0.5)
    assert 'All 4 steps are done' in caplog.text
