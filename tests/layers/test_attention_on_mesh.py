"""Attention on several devices: four, in a process of their own."""

import sys
from pathlib import Path

import pytest
from python_process import run_python

ROOT = Path(__file__).parents[2]

SETUP = """
import jax
jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 4)
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from vivit_jax.layers import attention_kernels
from vivit_jax.models.registry import create_model
from vivit_jax.parallel.mesh import batch_sharding, create_mesh, replicated

attention_kernels._CHUNK = 8
rng = np.random.default_rng(0)

def assert_near(values, expected):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5),
                 values, expected)
"""

KERNEL = """
def run(rate, *arrays):
    def attend(*inputs):
        return attention_kernels.dot_product_attention(
            *inputs, implementation='chunked', dropout_rate=rate, dropout_key=jax.random.key(0))
    output, backward = jax.vjp(attend, *arrays[:3])
    return output, *backward(arrays[3])

axes = ('data', 'fsdp', 'tensor')
halves = jax.make_mesh((2, 1, 2), axes, axis_types=(AxisType.Auto,) * 3)
for mesh, spec, batch, is_split in (
    (create_mesh(), PartitionSpec(('data', 'fsdp')), 8, True),
    (halves, PartitionSpec('data', None, 'tensor'), 8, True),
    (create_mesh(), PartitionSpec(), 6, False),  # does not divide among the devices
):
    arrays = [jnp.asarray(rng.normal(size=(batch, 20, 4, 4)), jnp.float32) for _ in range(4)]
    for rate in (0.0, 0.5):
        function = jax.jit(run, static_argnums=0)
        expected = function(rate, *arrays)
        sharded = jax.device_put(arrays, NamedSharding(mesh, spec))
        with jax.set_mesh(mesh):
            program = jax.jit(run, static_argnums=0).lower(rate, *sharded).compile()
            values = program(*sharded)
        assert_near(values, expected)
        if is_split:
            assert not {'all-gather', 'all-to-all', 'all-reduce'} & set(
                word.split('(')[0] for word in program.as_text().split())
            for value in values:
                assert value.sharding.shard_shape(value.shape)[0] == batch // mesh.shape['data']
"""

MODEL = """
model = create_model(
    {name!r}, hidden_size=16, num_layers=1, num_heads=2, mlp_dim=24, num_classes=5,
    tubelet_size=(2, 8, 8), attention_implementation='chunked', remat='block', scan_layers=True)
clip = jnp.asarray(rng.normal(size=(8, 6, 16, 16, 3)), jnp.float32)
shapes = jax.eval_shape(model.init, jax.random.key(0), clip)
params = jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.3, x.shape), x.dtype), shapes)

def loss(params, clip):
    return (model.apply(params, clip).logits * jnp.arange(5)).sum()

expected = jax.jit(jax.value_and_grad(loss))(params, clip)
mesh = create_mesh()
with jax.set_mesh(mesh):
    arrays = jax.device_put(params, replicated(mesh)), jax.device_put(clip, batch_sharding(mesh))
    program = jax.jit(jax.value_and_grad(loss)).lower(*arrays).compile()
    values = program(*arrays)
assert_near(values, expected)
assert 'all-reduce(' in program.as_text()
assert 'all-gather(' not in program.as_text()
"""


def _run(script):
    done = run_python([sys.executable, '-c', SETUP + script])
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_chunked_attention_stays_on_its_devices_with_equal_values_and_gradients():
    _run(KERNEL)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['vivit_joint', 'vivit_fdp'])
def test_model_gathers_no_batch_with_equal_values_and_gradients(name):
    _run(MODEL.format(name=name))
