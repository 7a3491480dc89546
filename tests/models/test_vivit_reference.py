"""The models with small random weights, compared with the original implementation.

The tolerances belong to the reference data, and must not be relaxed.
"""

import json

import flax.traverse_util
import jax
import numpy as np
import pytest

from vivit_jax.layers import attention_kernels
from vivit_jax.models.registry import create_model

TOLERANCE = 1e-5

# Norms below this are rounding: a key's bias has no gradient in theory.
SMALLEST_NORM = 1e-4

# (scan_layers, remat, attention_implementation): any two values meet in one of them.
SETTINGS = {
    'plain': (False, 'none', 'einsum'),
    'loop_block': (False, 'block', 'chunked'),
    'loop_dots': (False, 'dots', 'einsum'),
    'scan_none': (True, 'none', 'chunked'),
    'scan_block': (True, 'block', 'einsum'),
    'scan_dots': (True, 'dots', 'chunked'),
}
# Joint, FE, and FSA together with FDP, which share their code, each meet all of these settings.
CASES = {
    'joint_cls': ['plain', 'scan_block'],
    'joint_mean': ['loop_block', 'scan_dots'],
    'joint_uniform_frames': ['loop_dots', 'scan_none'],
    'fe_cls': ['plain', 'scan_dots'],
    'fe_mean': ['loop_block', 'scan_none'],
    'fe_frame_average': ['loop_dots', 'scan_block'],
    'fsa_space_time': ['plain', 'loop_block', 'scan_dots'],
    'fdp_mean': ['loop_dots', 'scan_none', 'scan_block'],
}

pytestmark = pytest.mark.usefixtures('exact_matmuls')


@pytest.fixture(params=CASES)
def reference(request, shared):
    return _load(shared, request.param)


def _load(shared, name):
    with np.load(shared / f'fixtures/vivit/{name}.npz', allow_pickle=False) as file:
        return dict(file)


def _model(reference, **keywords):
    return create_model(str(reference['model']), **json.loads(str(reference['kwargs'])), **keywords)


def _unflatten(reference, prefix):
    flat = {k.removeprefix(prefix): v for k, v in reference.items() if k.startswith(prefix)}
    return flax.traverse_util.unflatten_dict(flat, sep='/')


def _error(value, expected):
    return np.linalg.norm(value - expected) / np.linalg.norm(expected)


def test_all_reference_files_are_tested(shared):
    assert {path.stem for path in (shared / 'fixtures/vivit').glob('*.npz')} == set(CASES)


def test_parameters_have_names_and_shapes_of_the_original(reference):
    model = _model(reference)
    variables = jax.eval_shape(model.init, jax.random.key(0), reference['inputs'])
    shapes = jax.tree.map(lambda x: x.shape, variables['params'])
    assert shapes == jax.tree.map(lambda x: x.shape, _unflatten(reference, 'params/'))


@pytest.fixture
def all_optimizations():
    jax.config.update('jax_disable_most_optimizations', False)
    yield
    jax.config.update('jax_disable_most_optimizations', True)


@pytest.mark.parametrize(
    ('name', 'setting'), [(name, setting) for name in CASES for setting in CASES[name]]
)
def test_logits_and_gradients_equal_the_original(shared, name, setting, monkeypatch, request):
    if setting == 'plain':
        request.getfixturevalue('all_optimizations')
    monkeypatch.setattr(attention_kernels, '_CHUNK', 24)  # several in the 64 or 65 tokens
    reference = _load(shared, name)
    scan_layers, remat, implementation = SETTINGS[setting]
    model = _model(
        reference,
        scan_layers=scan_layers,
        remat=remat,
        attention_implementation=implementation,
    )

    def scalar(params, inputs):
        logits = model.apply({'params': params}, inputs).logits
        return (logits * reference['cotangent']).sum(), logits

    (grads, grad_inputs), logits = jax.jit(jax.grad(scalar, (0, 1), has_aux=True))(
        _unflatten(reference, 'params/'), reference['inputs']
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


def test_logits_equal_the_original_without_jit(reference):
    params = _unflatten(reference, 'params/')
    logits = _model(reference).apply({'params': params}, reference['inputs']).logits
    assert _error(logits, reference['logits']) <= TOLERANCE
