"""What devices send each other in a training step, in programs compiled for eight CPU devices."""

import json
import sys

import pytest
from python_process import run_python

SCRIPT = """
import json, sys
import jax
jax.config.update('jax_platforms', 'cpu')
jax.config.update('jax_num_cpu_devices', 8)
import optax
from vivit_jax.config.load import model_config
from vivit_jax.layers import convolution_kernels
from vivit_jax.parallel.compiled import CompiledText
from vivit_jax.parallel.mesh import create_mesh
from vivit_jax.train.programs import Programs

# Convolutions as they are on accelerators.
convolution_kernels._by_platform = lambda native, on_cpu, *inputs: native(*inputs)

name, sizes = sys.argv[1], eval(sys.argv[2])
config = model_config(name, 'hidden_size=32', 'num_layers=1', 'num_heads=16', 'mlp_dim=64',
                      *sys.argv[3:])
config.preprocessing.update(num_frames=8, short_side=32, crop_size=32)
programs = Programs(config, create_mesh(sizes), 8, optax.constant_schedule(3e-3))
with jax.set_mesh(programs.mesh):
    shapes = programs.abstract_state, programs.abstract_batch(64)
    compiled = programs.train_step().lower(*shapes).compile()
found = CompiledText(compiled.as_text()).collectives()
params = sum(4 * x.size for x in jax.tree.leaves(programs.abstract_state.params))
print(json.dumps([params, {kind: (x.delivered, x.sent) for kind, x in found.items()}]))
"""

PATCHES = 'tubelet_size=(2, 4, 4)'


def _collectives(name, mesh, *keywords):
    done = run_python([sys.executable, '-c', SCRIPT, name, repr(mesh), *keywords])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_data_parallel_devices_send_each_gradient_once_around_a_ring():
    params, found = _collectives('vivit_joint', (8, 1, 1), PATCHES)
    assert set(found) == {'all-reduce'}
    assert found['all-reduce'][0] == pytest.approx(params, rel=0.01)
    assert found['all-reduce'][1] == pytest.approx(2 * params * 7 / 8, rel=0.01)


def test_fully_sharded_devices_gather_each_parameter_and_sum_each_gradient_once():
    params, found = _collectives('vivit_joint', (1, 8, 1), PATCHES)
    # Norms and biases are not split. On CPUs a sum goes to all devices, also if each uses a part.
    assert params * 0.9 < found['all-gather'][0] < params
    assert found['all-reduce'][0] == pytest.approx(params, rel=0.01)


@pytest.mark.parametrize(
    ('name', 'mesh', 'keywords'),
    [
        ('vivit_fdp', (1, 1, 8), [PATCHES]),  # both groups of heads on every device
        ('convivit', (1, 8, 1), ['cnn_channels=8', PATCHES]),
        ('convivit', (2, 2, 2), ['cnn_channels=8', PATCHES]),
        ('ctn', (1, 8, 1), []),
        ('ctn', (2, 2, 2), []),
    ],
)
def test_devices_gather_parameters_and_no_tokens(name, mesh, keywords):
    params, found = _collectives(name, mesh, *keywords)
    kinds = ('all-gather', 'all-to-all', 'collective-permute')
    moved = sum(found.get(kind, (0, 0))[0] for kind in kinds)
    # On mixed meshes the kernel of the embedding moves twice. Tokens have many times its size.
    assert moved < 1.5 * params, found
