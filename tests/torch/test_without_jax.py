"""PyTorch models are made, saved and loaded without JAX; without PyTorch there is an error."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('torch', reason='needs PyTorch: the extra torch')

ROOT = Path(__file__).parents[2]

SCRIPT = """
import sys
if {blocked}:
    for name in ('jax', 'flax', 'optax'):
        sys.modules[name] = None
import vivit_jax.torch
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.model_card import ModelCard
import torch
keywords = dict(name='vivit_fe', hidden_size=8, num_heads=2, num_layers=1, mlp_dim=8, num_classes=2,
                tubelet_size=(2, 4, 4), temporal_num_layers=1, attention_implementation='cudnn')
card = ModelCard(keywords, Preprocessing(num_frames=4, crop_size=8, short_side=8), ('a', 'b'))
model = vivit_jax.torch.create_model(**keywords, clip_shape=card.preprocessing.clip_shape)
vivit_jax.torch.save_model(model, sys.argv[1], card)
loaded, found = vivit_jax.torch.load_model(sys.argv[1])
assert found == ModelCard.from_json(card.to_json()) and not loaded.training
clip = torch.rand(1, 4, 8, 8, 3)
assert torch.equal(loaded(clip).features, model(clip).features)
used = [x for x in sys.modules if x.split('.')[0] in ('jax', 'flax', 'jaxlib')]
assert {blocked} or not used, used
"""


@pytest.mark.parametrize('blocked', [True, False])
def test_everything_works_without_jax(blocked, tmp_path):
    script = SCRIPT.format(blocked=blocked)
    command = [sys.executable, '-c', script, str(tmp_path / 'model.safetensors')]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


def test_missing_pytorch_names_the_extra(monkeypatch):
    for name in [x for x in sys.modules if x.startswith('vivit_jax.torch')]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, 'torch', None)
    with pytest.raises(ImportError, match='pip install torch'):
        importlib.import_module('vivit_jax.torch')
