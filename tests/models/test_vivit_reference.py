"""The models on small random weights against the original implementation.

The tolerances are those of the reference data and are not to be relaxed.
"""

import json

import flax.traverse_util
import jax
import numpy as np
import pytest

from vivit_jax.models.registry import create_model

TOLERANCE = 1e-5

# Norms below this are rounding: a key's bias has no gradient in theory.
SMALLEST_NORM = 1e-4


@pytest.fixture(scope='module', params=['fe_cls', 'fe_mean', 'fe_frame_average'])
def reference(request, shared):
    with np.load(shared / f'fixtures/vivit/{request.param}.npz', allow_pickle=False) as file:
        return dict(file)


@pytest.fixture
def model(reference):
    return create_model(str(reference['model']), **json.loads(str(reference['kwargs'])))


@pytest.fixture
def params(reference):
    return _unflatten(reference, 'params/')


def _unflatten(reference, prefix):
    flat = {k.removeprefix(prefix): v for k, v in reference.items() if k.startswith(prefix)}
    return flax.traverse_util.unflatten_dict(flat, sep='/')


def _error(value, expected):
    return np.linalg.norm(value - expected) / np.linalg.norm(expected)


def test_parameters_have_names_and_shapes_of_the_original(reference, model, params):
    variables = jax.eval_shape(model.init, jax.random.key(0), reference['inputs'])
    shapes = jax.tree.map(lambda x: x.shape, variables['params'])
    assert shapes == jax.tree.map(lambda x: x.shape, params)


def test_logits_and_gradients_equal_the_original(reference, model, params):
    def scalar(params, inputs):
        logits = model.apply({'params': params}, inputs).logits
        return (logits * reference['cotangent']).sum(), logits

    with jax.default_matmul_precision('highest'):
        (grads, grad_inputs), logits = jax.jit(jax.grad(scalar, (0, 1), has_aux=True))(
            params, reference['inputs']
        )
    assert _error(logits, reference['logits']) <= TOLERANCE
    assert _error(grad_inputs, reference['grad_inputs']) <= TOLERANCE

    expected = flax.traverse_util.flatten_dict(_unflatten(reference, 'grad_norm/'), sep='/')
    norms = flax.traverse_util.flatten_dict(jax.tree.map(np.linalg.norm, grads), sep='/')
    assert norms.keys() == expected.keys()
    for name, norm in norms.items():
        if expected[name] < SMALLEST_NORM:
            assert norm < SMALLEST_NORM, name
        else:
            assert abs(norm - expected[name]) <= TOLERANCE * expected[name], name


def test_logits_equal_the_original_without_jit(reference, model, params):
    with jax.default_matmul_precision('highest'):
        logits = model.apply({'params': params}, reference['inputs']).logits
    assert _error(logits, reference['logits']) <= TOLERANCE
