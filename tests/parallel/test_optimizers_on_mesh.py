"""Optimizers whose state has other shapes than the parameters, on eight devices."""

import sys

import pytest
from python_process import run_python

SCRIPT = """
import sys
import jax
jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 8)
from pathlib import Path
import numpy as np
import optax
from vivit_jax.config.load import model_config
from vivit_jax.model_card import ModelCard
from vivit_jax.parallel.mesh import batch_sharding, create_mesh
from vivit_jax.train.checkpoints import Checkpoints
from vivit_jax.train.first_state import create_first_state
from vivit_jax.train.programs import Programs
from vivit_jax.video.preprocessing import Preprocessing

config = model_config('vivit_joint', 'hidden_size=32', 'num_layers=1', 'num_heads=8', 'mlp_dim=64',
                      'tubelet_size=(2, 4, 4)')
config.preprocessing.update(num_frames=4, short_side=8, crop_size=8)
config.train.update(optimizer=sys.argv[1], optimizer_keywords=eval(sys.argv[2]), weight_decay=0.1,
                    layer_decay=0.8, freeze=('^embedding/',))
rng = np.random.default_rng(0)
batch = {'rgb': rng.integers(0, 256, (8, 4, 8, 8, 3), np.uint8),
         'label': rng.integers(0, 8, 8).astype(np.int32)}

def train(sizes):
    devices = jax.devices()[: int(np.prod(sizes))]
    made = Programs(config, create_mesh(sizes, devices), 8, optax.constant_schedule(1e-2))
    with jax.set_mesh(made.mesh):
        state, step = create_first_state(made), made.train_step()
        embedding = jax.device_get(state.params['embedding'])
        losses = []
        for _ in range(3):
            state, metrics = step(state, jax.device_put(batch, batch_sharding(made.mesh)))
            losses.append(float(metrics['loss']))
    after = jax.device_get(state.params['embedding'])
    jax.tree.map(np.testing.assert_array_equal, embedding, after)
    return losses, state, made.abstract_state

expected, whole, _ = train((1, 1, 1))
assert expected[2] < expected[0], expected
losses, state, abstract = train((2, 2, 2))
np.testing.assert_allclose(losses, expected, rtol=1e-3)
assert jax.tree.structure(state) == jax.tree.structure(whole)
# Memory is saved: what has the shape of a split parameter is split.
name = "['query']['kernel']"
params, moments = ({x.shape: x.sharding for path, x in jax.tree_util.tree_flatten_with_path(tree)[0]
                    if jax.tree_util.keystr(path).endswith(name)}
                   for tree in (state.params, state.opt_state))
(shape, sharding), = params.items()
assert not sharding.is_fully_replicated
if sys.argv[1] != 'adafactor':
    assert moments[shape].spec == sharding.spec

checkpoints = Checkpoints(Path(sys.argv[3]), keep_last=1, keep_best=0)
checkpoints.save(whole, ModelCard({'name': 'vivit_joint'}, Preprocessing(), ('a', 'b')), {})
checkpoints.wait()
restored = checkpoints.restore(3, abstract)
checkpoints.close()
jax.tree.map(np.testing.assert_array_equal, restored, whole)
assert jax.tree.map(lambda x: x.sharding, restored) == jax.tree.map(lambda x: x.sharding, abstract)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ('optimizer', 'keywords'),
    [
        ('lion', None),
        ('lamb', None),
        ('adafactor', {'min_dim_size_to_factor': 8}),
        ('muon', None),
    ],
)
def test_steps_on_a_mesh_are_those_of_one_device_and_checkpoints_fit(tmp_path, optimizer, keywords):
    done = run_python([sys.executable, '-c', SCRIPT, optimizer, repr(keywords), str(tmp_path)])
    assert done.returncode == 0, done.stderr
