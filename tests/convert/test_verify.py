import jax
import numpy as np
import pytest

from vivit_jax.convert.verify import Reference
from vivit_jax.heads import numbered_labels
from vivit_jax.model_card import ModelCard
from vivit_jax.models.registry import create_model
from vivit_jax.models.variables import abstract_variables
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.weights.torch_export import export_torch

# Not in the order of the alphabet.
HEADS = {'verb': 4, 'noun': 3}


@pytest.mark.parametrize('classes', [5, HEADS], ids=str)
def test_same_weights_agree_and_others_do_not(tmp_path, capsys, classes):
    pytest.importorskip('torch', reason='needs PyTorch: the extra torch')
    spec = Preprocessing(num_frames=2, crop_size=8, short_side=8)
    sizes = {'hidden_size': 8, 'num_layers': 1, 'num_heads': 2, 'mlp_dim': 8}
    model = {'name': 'vivit_joint', 'tubelet_size': (2, 4, 4), 'num_classes': classes, **sizes}
    card = ModelCard(model, spec, numbered_labels(classes))
    shapes = abstract_variables(create_model(**model), spec.clip_shape)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)
    reference = Reference(card, variables)

    export_torch(card, variables['params'], tmp_path / 'same.safetensors')
    assert reference.compare('output', tmp_path / 'same.safetensors')
    variables['params']['embedding']['bias'] *= 1.01
    export_torch(card, variables['params'], tmp_path / 'other.safetensors')
    assert not reference.compare('output', tmp_path / 'other.safetensors')
    assert 'Error: they should differ by at most' in capsys.readouterr().out
