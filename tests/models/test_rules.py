"""The rules that split parameters, on meshes without devices."""

import math

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import AbstractMesh, PartitionSpec
from tiny_models import known_keywords

from vivit_jax.errors import UserError
from vivit_jax.models.registry import list_models
from vivit_jax.parallel.mesh import MESH_AXES, check_batch_size
from vivit_jax.parallel.rules import RULES, find_rule, split_arrays, split_optimizer

KEYWORDS = {'hidden_size': 64, 'num_heads': 8, 'mlp_dim': 128, 'width': 16}
OWN_KEYWORDS = {'mfst': {'stem_channels': 64}}  # channels that divide by eight


def _mesh(*sizes):
    return AbstractMesh(sizes, MESH_AXES)


def _variables(create_tiny, name):
    keywords = {**known_keywords(name, **KEYWORDS), **OWN_KEYWORDS.get(name, {})}
    model = create_tiny(name, **keywords)
    clip = jax.ShapeDtypeStruct((1, 4, 16, 16, 3), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), clip)


def _shard_bytes(shapes, mesh):
    shardings = split_arrays(shapes, mesh)
    sizes = jax.tree.map(lambda x, s: math.prod(s.shard_shape(x.shape)), shapes, shardings)
    return sum(jax.tree.leaves(sizes))


@pytest.mark.parametrize('name', list_models())
def test_every_parameter_of_every_model_has_a_rule(create_tiny, name):
    variables = _variables(create_tiny, name)
    total = _shard_bytes(variables, _mesh(8, 1, 1))
    assert total == sum(x.size for x in jax.tree.leaves(variables))
    # Nearly all is split: only norms, biases and class tokens are not.
    assert _shard_bytes(variables, _mesh(1, 8, 1)) < total / 4
    assert _shard_bytes(variables, _mesh(1, 2, 2)) < total / 1.8


def test_axes_are_those_of_the_table():
    shapes = {
        'block': {
            'query': {'kernel': (64, 8, 8), 'bias': (8, 8)},
            'out': {'kernel': (8, 8, 64), 'bias': (64,)},
            'MlpBlock_0': {
                'Dense_0': {'kernel': (64, 128), 'bias': (128,)},
                'Dense_1': {'kernel': (128, 64), 'bias': (64,)},
            },
            'LayerNorm_0': {'scale': (64,), 'bias': (64,)},
        },
        'embedding': {'kernel': (2, 4, 4, 3, 64), 'bias': (64,)},
        'posembed_input': {'pos_embedding': (1, 9, 64)},
        'output_projection_verb': {'kernel': (64, 8), 'bias': (8,)},
    }
    is_shape = {'is_leaf': lambda x: isinstance(x, tuple)}
    arrays = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s, jnp.float32), shapes, **is_shape)
    specs = jax.tree.map(lambda s: tuple(s.spec), split_arrays(arrays, _mesh(2, 2, 2)))
    assert specs == {
        'block': {
            'query': {'kernel': ('fsdp', 'tensor', None), 'bias': ('tensor', None)},
            'out': {'kernel': ('tensor', None, 'fsdp'), 'bias': (None,)},
            'MlpBlock_0': {
                'Dense_0': {'kernel': ('fsdp', 'tensor'), 'bias': ('tensor',)},
                'Dense_1': {'kernel': ('tensor', 'fsdp'), 'bias': (None,)},
            },
            'LayerNorm_0': {'scale': (None,), 'bias': (None,)},
        },
        'embedding': {'kernel': (None, None, None, None, 'fsdp'), 'bias': (None,)},
        'posembed_input': {'pos_embedding': (None, None, 'fsdp')},
        'output_projection_verb': {'kernel': ('fsdp', 'tensor'), 'bias': ('tensor',)},
    }


def test_state_of_an_optimizer_follows_its_parameter():
    params = {'Dense_0': {'kernel': jnp.zeros((64, 128)), 'bias': jnp.zeros(128)}}
    mesh = _mesh(1, 4, 2)
    expected = split_arrays(params, mesh)

    def split(optimizer):
        return split_optimizer(jax.eval_shape(optimizer.init, params), params, expected, mesh)

    moments = split(optax.adamw(0.1))[0]
    assert moments.mu == moments.nu == expected
    assert moments.count.spec == PartitionSpec()
    # Factors of moments have other shapes than their parameter, and are whole.
    factors = split(optax.adafactor(0.1, min_dim_size_to_factor=8))[0]
    assert factors.v['Dense_0']['bias'] == expected['Dense_0']['bias']
    assert factors.v_row['Dense_0']['kernel'].spec == PartitionSpec()


def test_names_without_a_rule_or_with_two_are_errors(monkeypatch):
    with pytest.raises(ValueError, match=r'^0 patterns .* match the parameter block/gate'):
        find_rule('block/gate')
    assert find_rule('opt_state/0/mu/block/Dense_0/kernel') == ('fsdp', 'tensor')
    monkeypatch.setitem(RULES, r'\w+/kernel', (None,))
    with pytest.raises(ValueError, match=r'^2 patterns .* block/query/kernel'):
        find_rule('block/query/kernel')


def test_what_cannot_be_split_is_an_error_that_names_it(create_tiny):
    variables = _variables(create_tiny, 'vivit_joint')
    with pytest.raises(
        UserError, match=r'Dense_0/kernel \[64, 128\]: tensor=3 does not divide 128'
    ):
        split_arrays(variables, _mesh(1, 1, 3))
    # A classifier of 5 classes is small, and stays whole.
    assert variables['params']['output_projection']['kernel'].shape[1] % 8
    kernel = split_arrays(variables, _mesh(1, 1, 8))['params']['output_projection']['kernel']
    assert kernel.is_fully_replicated


def test_batch_must_divide_into_the_parts_of_the_mesh():
    mesh = _mesh(2, 2, 2)
    check_batch_size(12, mesh, 'train.batch_size')
    check_batch_size(24, mesh, 'train.batch_size', accumulate=3)
    with pytest.raises(
        UserError,
        match=r'all 8 devices .* 12 equal parts, for train.accumulate=3: .*multiple of 12',
    ):
        check_batch_size(16, mesh, 'train.batch_size', accumulate=3)
