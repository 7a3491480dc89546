"""Meshes, and the type that a platform computes in."""

import logging

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from vivit_jax.models.registry import create_model
from vivit_jax.parallel.mesh import BATCH_AXES, MESH_AXES, constrain, fit_dtype, on_each_device


@pytest.mark.parametrize(
    ('platform', 'dtype', 'expected'),
    [
        ('cpu', 'bfloat16', 'float32'),
        ('cpu', 'float16', 'float32'),
        ('cpu', 'float32', 'float32'),
        ('cuda', 'bfloat16', 'bfloat16'),
        ('tpu', 'bfloat16', 'bfloat16'),
    ],
)
def test_cpus_compute_in_float32(caplog, platform, dtype, expected):
    caplog.set_level(logging.INFO)
    keywords = {'num_classes': 3, 'num_layers': 1, 'gelu': 'exact'}
    model = fit_dtype(create_model('vivit_fe', dtype=dtype, **keywords), platform)
    assert model == create_model('vivit_fe', dtype=expected, **keywords)
    assert bool(caplog.messages) == (dtype != expected)
    assert all(dtype in message for message in caplog.messages)


def _traced(function, sizes, axes):
    x = jax.ShapeDtypeStruct((8, 6), jnp.float32)
    mesh = AbstractMesh(sizes, axes, axis_types=(AxisType.Auto,) * len(sizes))
    with jax.sharding.use_abstract_mesh(mesh):
        return jax.make_jaxpr(function)(x).eqns


@pytest.mark.parametrize(
    ('sizes', 'spec'),
    [
        ((2, 2, 3), PartitionSpec(BATCH_AXES, 'tensor')),
        ((2, 2, 4), PartitionSpec(BATCH_AXES, None)),
        ((3, 1, 2), PartitionSpec(None, 'tensor')),
    ],
)
def test_axes_are_split_where_they_divide(sizes, spec):
    (constraint,) = _traced(lambda x: constrain(x, BATCH_AXES, 'tensor'), sizes, MESH_AXES)
    assert constraint.params['sharding'].spec == spec


@pytest.mark.parametrize(('sizes', 'axes'), [((1, 1, 1), MESH_AXES), ((4, 2), ('x', 'y'))])
def test_nothing_is_split_on_one_device_and_on_meshes_with_other_axes(sizes, axes):
    assert not _traced(lambda x: on_each_device(lambda x: constrain(x, BATCH_AXES), x), sizes, axes)
