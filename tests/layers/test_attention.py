import jax
import numpy as np
import pytest

from vivit_jax.layers.transformer import SelfAttention

pytestmark = pytest.mark.usefixtures('exact_matmuls')


def _project(params, name, tokens):
    return np.einsum('nd,dkm->knm', tokens, params[name]['kernel']) + params[name]['bias'][:, None]


def _attend(params, tokens, heads=slice(None)):
    """Weights [k q n] and mixed values [k q m] of one sequence [n d]."""
    query, key, value = (_project(params, name, tokens) for name in ('query', 'key', 'value'))
    scores = np.einsum('kqm,knm->kqn', query, key) / np.sqrt(query.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return weights[heads], np.einsum('kqn,knm->kqm', weights, value)[heads]


def _out(params, mixed):
    return np.einsum('kqm,kmd->qd', mixed, params['out']['kernel']) + params['out']['bias']


def _tokens(*shape):
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize('num_heads', [1, 3])
def test_attention_equals_softmax_formula(random_params, num_heads):
    module, tokens = SelfAttention(num_heads), _tokens(2, 3, 5, 12)
    params = random_params(module, tokens)
    output, captured = module.apply({'params': params}, tokens)
    assert captured == {}
    weighted, captured = module.apply({'params': params}, tokens, capture_attention=True)
    np.testing.assert_allclose(weighted, output, rtol=1e-5, atol=1e-6)

    exact = jax.tree.map(np.float64, params)
    for place in np.ndindex(2, 3):
        weights, mixed = _attend(exact, np.float64(tokens[place]))
        np.testing.assert_allclose(output[place], _out(exact, mixed), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(captured['tokens'][place], weights, rtol=1e-4, atol=1e-5)
    assert captured['tokens'].shape == (2, 3, num_heads, 5, 5)


@pytest.mark.parametrize('axes', [('space',), ('time',), ('time', 'space'), ('space', 'time')])
def test_attention_along_axes_equals_formula_on_each_sequence(random_params, axes):
    module, tokens = SelfAttention(4, axes), _tokens(2, 3, 5, 8)
    params = random_params(module, tokens)
    output, captured = module.apply({'params': params}, tokens, capture_attention=True)

    exact, share = jax.tree.map(np.float64, params), 4 // len(axes)
    mixed = np.zeros((4, 2, 3, 5, 2))
    for group, axis in enumerate(axes):
        heads = slice(group * share, (group + 1) * share)
        if axis == 'space':
            sequences = {(b, t): (b, t) for b in range(2) for t in range(3)}
        else:
            sequences = {(b, n): (b, slice(None), n) for b in range(2) for n in range(5)}
        assert captured[axis].shape[:3] == (2, 3 if axis == 'space' else 5, share)
        for name, place in sequences.items():
            weights, values = _attend(exact, np.float64(tokens[place]), heads)
            mixed[(heads, *place)] = values
            np.testing.assert_allclose(captured[axis][name], weights, rtol=1e-4, atol=1e-5)
    expected = _out(exact, mixed.reshape(4, -1, 2)).reshape(tokens.shape)
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('implementation', ['einsum', 'chunked'])
def test_attention_dropout_differs_between_heads_axes_and_sequences(implementation):
    # The values of one head are ones, so that its output is the sum of its kept weights. That sum
    # is a multiple of 1/4 before the scaling by 1/(1 - 0.5), and of 1/2 after it.
    width = 64
    params = {
        name: {'kernel': np.zeros((width, 8, 8)), 'bias': np.zeros((8, 8))}
        for name in ('query', 'key')
    }
    params['value'] = {'kernel': np.zeros((width, 8, 8)), 'bias': np.ones((8, 8))}
    params['out'] = {'kernel': np.eye(width).reshape(8, 8, width), 'bias': np.zeros(width)}
    module = SelfAttention(
        8, axes=('time', 'space'), dropout_rate=0.5, implementation=implementation
    )
    rngs = {'dropout': jax.random.key(0)}
    tokens = np.zeros((3, 4, 4, width), np.float32)
    output, _ = module.apply({'params': params}, tokens, train=True, rngs=rngs)

    kept = np.asarray(output).reshape(3, 4, 4, 8, 8)[..., 0]
    assert set(np.unique(kept)) <= {0, 0.5, 1, 1.5, 2}
    by_head = np.moveaxis(kept, 3, 0).reshape(8, -1)
    assert len(np.unique(by_head, axis=0)) == 8
    by_time_sequence = np.moveaxis(kept[..., :4], 1, 2).reshape(12, -1)
    by_space_sequence = kept[..., 4:].reshape(12, -1)
    assert len(np.unique(np.concatenate([by_time_sequence, by_space_sequence]), axis=0)) == 24
    np.testing.assert_array_equal(module.apply({'params': params}, tokens)[0], 1)


def test_capture_takes_no_fused_kernel(random_params):
    fused, plain = SelfAttention(2, implementation='pallas'), SelfAttention(2)
    tokens = _tokens(2, 5, 8)
    variables = {'params': random_params(plain, tokens)}
    output, captured = fused.apply(variables, tokens, capture_attention=True)
    assert captured['tokens'].shape == (2, 2, 5, 5)
    np.testing.assert_allclose(output, plain.apply(variables, tokens)[0], rtol=1e-4, atol=1e-5)


def test_captured_weights_are_those_before_dropout(random_params):
    module, tokens = SelfAttention(2, dropout_rate=0.5, implementation='chunked'), _tokens(2, 5, 8)
    params = random_params(module, tokens)
    rngs = {'dropout': jax.random.key(0)}
    dropped, captured = module.apply(
        {'params': params}, tokens, train=True, capture_attention=True, rngs=rngs
    )
    output, expected = module.apply({'params': params}, tokens, capture_attention=True)
    np.testing.assert_array_equal(captured['tokens'], expected['tokens'])
    assert np.abs(dropped - output).max() > 0.01
