"""Training on eight devices, split in every way, in a process of its own."""

import sys

import pytest
from python_process import run_python

MIXED = (2, 2, 2)  # data, fsdp, tensor

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

name, folder, meshes = sys.argv[1], Path(sys.argv[2]), eval(sys.argv[3])
config = model_config(name, 'hidden_size=32', 'num_layers=2', 'num_heads=8', 'mlp_dim=64',
                      'tubelet_size=(2, 4, 4)', *sys.argv[4:])
config.preprocessing.update(num_frames=4, short_side=8, crop_size=8)
config.augment.update(mixup_alpha=0.3, flip=0.5)
config.train.update(optimizer='adamw', ema_decay=0.9)
rng = np.random.default_rng(0)
batches = [{'rgb': rng.integers(0, 256, (16, 4, 8, 8, 3), np.uint8),
            'label': rng.integers(0, 8, 16).astype(np.int32)} for _ in range(2)] * 5

def programs(sizes):
    devices = jax.devices()[: int(np.prod(sizes))]
    return Programs(config, create_mesh(sizes, devices), 8, optax.constant_schedule(3e-3))

def train(sizes):
    made = programs(sizes)
    with jax.set_mesh(made.mesh):
        state, step = create_first_state(made), made.train_step()
        losses = []
        for batch in batches:
            state, metrics = step(state, jax.device_put(batch, batch_sharding(made.mesh)))
            losses.append([float(metrics[key]) for key in ('loss', 'acc1', 'grad_norm')])
    return losses, state

def is_split(x):
    return not x.sharding.is_fully_replicated

expected, whole = train((8, 1, 1))
assert not any(map(is_split, jax.tree.leaves(whole)))
assert np.ptp(np.array(expected)[:, 0]) > 0.1, expected  # it learns
for sizes in meshes:
    losses, state = train(sizes)
    np.testing.assert_allclose(losses, expected, rtol=1e-5, err_msg=str(sizes))
    for tree in (state.params, state.opt_state[0], state.ema):
        named = jax.tree_util.tree_flatten_with_path(tree)[0]
        assert all(is_split(x) for path, x in named if 'query/kernel' in
                   jax.tree_util.keystr(path, simple=True, separator='/'))

checkpoints = Checkpoints(folder, keep_last=1, keep_best=0)
checkpoints.save(whole, ModelCard({'name': name}, programs((8, 1, 1)).spec, ('a', 'b')), {})
checkpoints.wait()
for sizes in ((2, 4, 1), (1, 1, 1)):
    restored = checkpoints.restore(len(batches), programs(sizes).abstract_state)
    jax.tree.map(np.testing.assert_array_equal, restored, whole)
    assert is_split(jax.tree.leaves(restored.params)[-1]) == (sizes[1] > 1)
checkpoints.close()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'keywords', 'meshes'),
    [
        ('vivit_joint', [], [MIXED]),
        ('vivit_fe', ['temporal_num_layers=1'], [(1, 8, 1), MIXED, (1, 1, 8)]),
        ('vivit_fdp', [], [MIXED]),
        ('convivit', ['cnn_channels=8'], [(1, 8, 1), MIXED]),
    ],
)
def test_losses_are_equal_on_every_mesh_and_checkpoints_fit_any(tmp_path, name, keywords, meshes):
    done = run_python([sys.executable, '-c', SCRIPT, name, str(tmp_path), repr(meshes), *keywords])
    assert done.returncode == 0, done.stderr
