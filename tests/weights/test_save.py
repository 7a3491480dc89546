"""Models that were trained by other code are saved, and refused where something does not fit."""

import dataclasses
import sys

import flax.linen as nn
import jax
import numpy as np
import pytest
from python_process import run_python

from vivit_jax.errors import UserError
from vivit_jax.models.registry import MODELS, create_model, find_keywords, list_models, specify
from vivit_jax.models.variables import abstract_variables
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.weights.load import load_checkpoint
from vivit_jax.weights.save import save_checkpoint

SPEC = Preprocessing(num_frames=4, crop_size=8, short_side=12, value_range=(0, 1))
LABELS = ('clap', 'jump', 'run')
BIAS = {'bias': np.zeros(2)}
SIZES = {
    'hidden_size': 16,
    'num_layers': 2,
    'num_heads': 2,
    'mlp_dim': 24,
    'tubelet_size': (2, 4, 4),
    'num_classes': 3,
}


def make(name, **keywords):
    """A model and random variables."""
    model = create_model(name, **{**SIZES, **keywords})
    rng = np.random.default_rng(0)
    shapes = abstract_variables(model, SPEC.clip_shape)
    return model, jax.tree.map(lambda x: rng.uniform(0.5, 1.5, x.shape).astype(np.float32), shapes)


@pytest.mark.parametrize('name', ['vivit_fe', 'ctn'])
def test_loaded_model_computes_the_same(name, tmp_path):
    model, variables = make(name)
    save_checkpoint(tmp_path / 'own', model, variables, SPEC, list(LABELS))
    loaded, found, preprocessing, label_names = load_checkpoint(tmp_path / 'own')
    assert (loaded.spec, preprocessing, label_names) == (model.spec, SPEC, LABELS)
    jax.tree.map(np.testing.assert_array_equal, found, variables)
    again = tmp_path / 'again'  # what `load_checkpoint` returns can be saved
    save_checkpoint(again, loaded, found, preprocessing, label_names)
    jax.tree.map(np.testing.assert_array_equal, load_checkpoint(again)[1], variables)


def test_several_heads_keep_their_names(tmp_path):
    labels = {'verb': ('cut', 'fry'), 'noun': ('egg',)}
    model, variables = make('vivit_joint', num_classes={'verb': 2, 'noun': 1})
    save_checkpoint(tmp_path / 'own', model, variables, SPEC, labels)
    assert load_checkpoint(tmp_path / 'own')[3] == labels


def test_commands_read_what_was_saved(tmp_path):
    model, variables = make('vivit_joint')
    save_checkpoint(tmp_path / 'own', model, variables, SPEC, LABELS)
    flags = [f'--source={tmp_path}/own', '--to=npz', f'--output={tmp_path}/own.npz']
    done = run_python([sys.executable, '-m', 'vivit_jax.convert', *flags])
    assert done.returncode == 0, done.stderr
    assert load_checkpoint(tmp_path / 'own.npz')[3] == LABELS


@pytest.mark.parametrize('name', list_models())
@pytest.mark.parametrize('kind', ['TINY', 'SMALL', 'defaults'])
def test_keywords_of_a_specification_make_it_again(name, kind):
    spec = specify(name, **({} if kind == 'defaults' else getattr(MODELS[name], kind)))
    assert specify(**find_keywords(spec)) == spec
    assert find_keywords(spec).keys() >= {'name', 'num_classes'}


def without(tree, name):
    return {key: value for key, value in tree.items() if key != name}


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            lambda params: {'label_names': (*LABELS, 'walk')},
            'label_names has 4 names, and the model has 3 classes',
        ),
        (
            lambda params: {'label_names': {'verb': LABELS}},
            "label_names has {'verb': 3} names, and the model has 3 classes",
        ),
        (
            lambda params: {'preprocessing': dataclasses.replace(SPEC, num_frames=8)},
            r'pos_embedding: \(1, 9, 16\), needed \(1, 17, 16\)',
        ),
        (
            lambda params: {'preprocessing': dataclasses.replace(SPEC, num_frames=3)},
            'preprocessing does not fit the model: .* frames=3',
        ),
        (
            lambda params: {'variables': params},
            "variables has the keys .*'embedding'.* must be {'params'",
        ),
        (
            lambda params: {'variables': {'params': without(params, 'output_projection')}},
            'output_projection: missing',
        ),
        (
            lambda params: {'variables': {'params': {**params, 'output_projection': BIAS}}},
            r'output_projection/bias: \(2,\), needed \(3,\)',
        ),
        (
            lambda params: {'variables': {'params': {**params, 'mine': BIAS}}},
            r'mine/bias: \(2,\), which this model does not have',
        ),
        (
            lambda params: {'variables': {'params': {**params, 'cls': params['cls'] * np.nan}}},
            'cls: holds values that are not finite',
        ),
        (
            lambda params: {'variables': {'params': {**params, 'cls': params['cls'].astype(int)}}},
            'cls: holds int64, needed floats',
        ),
        (
            lambda params: {'model': nn.Dense(3)},
            'Dense is no model of vivit_jax.create_model',
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change, message, tmp_path):
    model, variables = make('vivit_joint')
    arguments = {
        'model': model,
        'variables': variables,
        'preprocessing': SPEC,
        'label_names': LABELS,
        **change(variables['params']),
    }
    with pytest.raises(UserError, match=message):
        save_checkpoint(tmp_path / 'own', **arguments)
    assert not (tmp_path / 'own').exists()


def test_missing_statistics_are_named(tmp_path):
    model, variables = make('ctn')
    with pytest.raises(UserError, match='mean: missing, needed'):
        save_checkpoint(tmp_path / 'own', model, {'params': variables['params']}, SPEC, LABELS)


def test_all_problems_are_listed_at_once(tmp_path):
    model, variables = make('vivit_joint')
    spec = dataclasses.replace(SPEC, num_frames=8)
    with pytest.raises(UserError, match=r'(?s)label_names has 1 names.*pos_embedding'):
        save_checkpoint(tmp_path / 'own', model, variables, spec, ('clap',))


def test_existing_folder_is_refused(tmp_path):
    model, variables = make('vivit_joint')
    with pytest.raises(UserError, match=f'{tmp_path} exists already: name another folder'):
        save_checkpoint(tmp_path, model, variables, SPEC, LABELS)
    assert not list(tmp_path.iterdir())


def test_folder_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match='file/own cannot be written'):
        save_checkpoint(tmp_path / 'file/own', *make('vivit_joint'), SPEC, LABELS)
