"""Statistics of batches on several devices: four, in a process of their own."""

import sys
from pathlib import Path

import pytest
from python_process import run_python
from tiny_models import known_keywords, tiny_keywords

ROOT = Path(__file__).parents[2]

SCRIPT = """
import jax
jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 4)
import jax.numpy as jnp
import numpy as np
from vivit_jax.models.registry import create_model
from vivit_jax.parallel.mesh import batch_sharding, create_mesh, replicated

model = create_model({name!r}, remat='block', **{keywords!r})
rng = np.random.default_rng(0)
# Examples differ in brightness, so that a part of the batch has other statistics than the whole.
clip = rng.normal(size=(8, 4, 16, 16, 3)) + np.arange(8).reshape(-1, 1, 1, 1, 1)
clip = jnp.asarray(clip, jnp.float32)
variables = model.init(jax.random.key(0), clip)
params = jax.tree.map(lambda x: jnp.asarray(rng.normal(0, 0.3, x.shape), x.dtype),
                      variables['params'])
statistics = variables['batch_stats']

def run(params, statistics, clip):
    def loss(params):
        variables = {{'params': params, 'batch_stats': statistics}}
        output, changed = model.apply(variables, clip, train=True, mutable=['batch_stats'])
        return (output.logits * jnp.arange(5)).sum(), changed['batch_stats']
    return jax.value_and_grad(loss, has_aux=True)(params)

expected = jax.jit(run)(params, statistics, clip)
part = jax.jit(run)(params, statistics, clip[:2])
mesh = create_mesh()
with jax.set_mesh(mesh):
    arrays = (*jax.device_put((params, statistics), replicated(mesh)),
              jax.device_put(clip, batch_sharding(mesh)))
    program = jax.jit(run).lower(*arrays).compile()
    values = program(*arrays)

def assert_near(values, expected, tolerance):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, tolerance, tolerance),
                 values, expected)

(loss, statistics), gradients = values
assert_near(statistics, expected[0][1], 1e-5)
assert_near((loss, gradients), (expected[0][0], expected[1]), 1e-3)
differences = jax.tree.map(lambda x, y: np.abs(x - y).max(), part[0][1], expected[0][1])
assert min(jax.tree.leaves(differences)) > 1e-4, differences
assert 'all-reduce(' in program.as_text()
assert 'all-gather(' not in program.as_text()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ('name', 'keywords'),
    [
        ('convivit', {'cnn_channels': 6}),
        ('ctn', {'stem_channels': 4, 'stem_kernel': 3}),
        ('f4d', {}),
    ],
)
def test_statistics_are_of_the_whole_batch_with_equal_values_and_gradients(name, keywords):
    layers = known_keywords(name, num_layers=1)
    keywords = tiny_keywords(name, 8, **layers, **keywords)
    script = SCRIPT.format(name=name, keywords=keywords)
    done = run_python([sys.executable, '-c', script])
    assert done.returncode == 0, done.stderr
