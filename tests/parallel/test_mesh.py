"""Meshes, and the type that a platform computes in."""

import logging

import pytest

from vivit_jax.models.registry import create_model
from vivit_jax.parallel.mesh import fit_dtype


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
