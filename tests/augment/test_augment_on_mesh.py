"""Augmentation on several devices: four, in a process of their own."""

import sys
from pathlib import Path

import pytest
from python_process import run_python

ROOT = Path(__file__).parents[2]

SCRIPT = """
import jax
jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 4)
import re
import numpy as np
from vivit_jax.augment.mixing import mix
from vivit_jax.augment.batch import augment_clips
from vivit_jax.augment.policy import Augmentation
from vivit_jax.parallel.mesh import batch_sharding, create_mesh

policy = Augmentation(flip=0.5, color_jitter=0.5, randaugment_layers=2, erase=0.5)
rng = np.random.default_rng(0)
clips = {
    'rgb': rng.integers(0, 256, (8, 2, 16, 12, 3), np.uint8),
    'depth': rng.integers(0, 9000, (8, 2, 16, 12, 1), np.uint16),
}
inputs = clips, rng.random(8) < 0.5, np.eye(8, dtype=np.float32)

def run(clips, is_mirrored, targets):
    keys = jax.random.split(jax.random.key(3))
    clips = augment_clips(keys[0], clips, is_mirrored, policy)
    return clips, *mix(keys[1], clips, targets, 0.3, 1.0)

mesh = create_mesh()
sharded = jax.device_put(inputs, batch_sharding(mesh))
with jax.set_mesh(mesh):
    program = jax.jit(run).lower(*sharded).compile()
    values = program(*sharded)
expected = jax.jit(run)(*inputs)  # outside of the mesh, on one device
assert len(jax.tree.leaves(expected)[0].sharding.device_set) == 1

def assert_near(value, expected):
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)

jax.tree.map(assert_near, values, expected)
for value in jax.tree.leaves(values[0]):
    assert value.sharding.shard_shape(value.shape)[0] == 2

# Of clips nothing crosses devices but one of each, for mixing.
collectives = re.findall(
    r'= *(\\S+) (all-gather|all-to-all|all-reduce|collective-permute)[a-z-]*\\(',
    program.as_text())
for shape, kind in collectives:
    sizes = [int(n) for n in re.findall(r'\\d+', shape.split('[')[1].split(']')[0])]
    if len(sizes) == 5:
        assert (kind, sizes[0]) == ('collective-permute', 1), (kind, shape)
assert any(kind == 'collective-permute' for _, kind in collectives)
"""


@pytest.mark.slow
def test_clips_stay_on_their_devices_and_equal_those_of_one_device():
    done = run_python([sys.executable, '-c', SCRIPT])
    assert done.returncode == 0, done.stderr
