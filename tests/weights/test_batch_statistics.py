"""Running statistics in every file format, and models that some formats cannot hold."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from python_process import run_python

from vivit_jax.errors import UserError
from vivit_jax.heads import numbered_labels
from vivit_jax.model_card import ModelCard
from vivit_jax.models.registry import create_model
from vivit_jax.models.variables import abstract_variables
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.weights.batch_statistics import fit_statistics
from vivit_jax.weights.huggingface import write_huggingface
from vivit_jax.weights.load import load_checkpoint, read_weights
from vivit_jax.weights.orbax import write_checkpoint
from vivit_jax.weights.torch_export import export_torch
from vivit_jax.weights.vivit_jax_npz import write_npz

ROOT = Path(__file__).parents[2]
SPEC = Preprocessing(num_frames=4, crop_size=8, short_side=12, value_range=(0, 1))
SIZES = {
    'hidden_size': 16,
    'num_layers': 2,
    'num_heads': 2,
    'mlp_dim': 24,
    'tubelet_size': (2, 4, 4),
    'num_classes': 5,
}
FORMS = {'w.npz': write_npz, 'orbax': write_checkpoint, 'w.safetensors': export_torch}


def make(name):
    """A card, random parameters and random statistics."""
    card = ModelCard({'name': name, **SIZES}, SPEC, numbered_labels(5))
    rng = np.random.default_rng(0)
    shapes = abstract_variables(create_model(**card.model), SPEC.clip_shape)
    variables = jax.tree.map(lambda x: rng.uniform(0.5, 1.5, x.shape).astype(np.float32), shapes)
    return card, variables['params'], variables['batch_stats']


@pytest.mark.parametrize('name', FORMS)
@pytest.mark.parametrize('model', ['ctn', 'vivit_joint'])
def test_every_form_keeps_the_statistics_bit_for_bit(name, model, tmp_path):
    card, params, statistics = make(model)
    FORMS[name](card, params, tmp_path / name, statistics)
    weights = read_weights(tmp_path / name)
    jax.tree.map(np.testing.assert_array_equal, weights.params, params)
    jax.tree.map(np.testing.assert_array_equal, weights.batch_stats, statistics)
    assert (weights.batch_stats == {}) == (model == 'vivit_joint')


def test_file_without_its_statistics_is_refused(tmp_path):
    card, params, statistics = make('ctn')
    path = tmp_path / 'w.npz'
    write_npz(card, params, path)
    with pytest.raises(UserError, match='stem/norm/mean: missing'):
        load_checkpoint(path)
    with pytest.raises(UserError, match=r'lack the running statistics.*stem/norm/mean'):
        fit_statistics(jax.eval_shape(lambda: statistics), {})


def test_statistics_that_fit_are_taken_and_the_others_fresh():
    fresh = {'stem': {'mean': np.zeros(3), 'var': np.ones(3)}, 'new': {'mean': np.zeros(2)}}
    found = {'stem': {'mean': np.full(3, 5.0), 'var': np.full(4, 5.0)}, 'gone': {'mean': 1}}
    expected = {'stem': {'mean': np.full(3, 5.0), 'var': np.ones(3)}, 'new': {'mean': np.zeros(2)}}
    result = fit_statistics(fresh, found)
    jax.tree.map(np.testing.assert_array_equal, result, expected)


@pytest.mark.parametrize('model', ['convivit', 'ctn', 'rpe_stdt'])
def test_huggingface_has_no_such_model(model, tmp_path):
    card, params, _ = make(model)
    with pytest.raises(UserError, match=f'has no {model}: --to=torch'):
        write_huggingface(card, params, tmp_path / 'folder')
    assert not (tmp_path / 'folder').exists()


@pytest.mark.slow
def test_conversions_one_after_the_other_keep_everything(tmp_path):
    pytest.importorskip('torch', reason='needs PyTorch: the extra torch')
    card, params, statistics = make('ctn')
    source = tmp_path / 'start.npz'
    write_npz(card, params, source, statistics)

    def convert(output, to):
        command = [sys.executable, '-m', 'vivit_jax.convert', f'--source={source}', '--verify']
        command += [f'--output={output}', f'--to={to}']
        return run_python(command)

    for name, to in {'w.safetensors': 'torch', 'orbax': 'orbax', 'w.npz': 'npz'}.items():
        done = convert(tmp_path / name, to)
        assert done.returncode == 0, done.stdout + done.stderr
        source = tmp_path / name
    weights = read_weights(source)
    assert weights.card == ModelCard.from_json(card.to_json())
    jax.tree.map(np.testing.assert_array_equal, weights.params, params)
    jax.tree.map(np.testing.assert_array_equal, weights.batch_stats, statistics)
    refused = convert(tmp_path / 'folder', 'huggingface')
    assert refused.returncode == 2 and 'has no ctn: --to=torch' in refused.stderr
