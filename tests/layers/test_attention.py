import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_jax.layers.attention import SelfAttention


def _random_params(module, tokens, seed=0):
    """Parameters of which none is zero, biases included."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), tokens)['params']
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.normal(0, 0.4, x.shape).astype(np.float32), shapes)


def _reference(params, tokens):
    def project(name):
        return (
            np.einsum('nd,dkm->knm', tokens, params[name]['kernel']) + params[name]['bias'][:, None]
        )

    query, key, value = project('query'), project('key'), project('value')
    scores = np.einsum('kqm,knm->kqn', query, key) / np.sqrt(query.shape[-1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    mixed = np.einsum('kqn,knm->qkm', weights, value)
    return np.einsum('qkm,kmd->qd', mixed, params['out']['kernel']) + params['out']['bias']


@pytest.mark.parametrize('num_heads', [1, 3])
def test_attention_equals_softmax_formula(num_heads):
    module = SelfAttention(num_heads)
    tokens = np.random.default_rng(1).normal(size=(2, 3, 5, 12)).astype(np.float32)
    params = _random_params(module, tokens)
    with jax.default_matmul_precision('highest'):
        output = module.apply({'params': params}, tokens)

    exact = jax.tree.map(np.float64, params)
    expected = [_reference(exact, np.float64(one)) for one in tokens.reshape(-1, 5, 12)]
    np.testing.assert_allclose(output.reshape(-1, 5, 12), expected, rtol=1e-4, atol=1e-5)


def test_attention_leading_axes_do_not_mix():
    module = SelfAttention(2)
    tokens = np.random.default_rng(1).normal(size=(2, 3, 4, 8)).astype(np.float32)
    params = _random_params(module, tokens)
    changed = tokens.copy()
    changed[1, 2, 0] += 1

    before = module.apply({'params': params}, tokens)
    after = module.apply({'params': params}, changed)

    moved = np.abs(np.asarray(after - before)).max(-1)
    expected = np.zeros((2, 3, 4), bool)
    expected[1, 2] = True  # every token of this sequence, and of no other one
    np.testing.assert_array_equal(moved > 1e-4, expected)


def _attend_to_second_channel(tokens, query, dtype):
    """One head of width 4 that returns its values, which are the keys; the query is constant."""
    identity = np.eye(4, dtype=np.float32)
    into_heads = {'kernel': identity.reshape(4, 1, 4), 'bias': np.zeros((1, 4), np.float32)}
    params = {
        'query': {'kernel': np.zeros((4, 1, 4), np.float32), 'bias': np.float32([query])},
        'key': into_heads,
        'value': into_heads,
        'out': {'kernel': identity.reshape(1, 4, 4), 'bias': np.zeros(4, np.float32)},
    }
    return SelfAttention(1, dtype=dtype).apply({'params': params}, jnp.asarray(tokens, dtype))


def test_attention_in_bfloat16_has_float32_scores():
    # 1/2 (32, 2) . (16, 0) = 256 and 1/2 (32, 2) . (16, 1) = 257: one number to bfloat16.
    tokens = [[16, 0, 0, 0], [16, 1, 0, 0]]
    output = _attend_to_second_channel(tokens, [32, 2, 0, 0], jnp.bfloat16)

    assert output.dtype == jnp.bfloat16
    weight = 1 / (1 + np.exp(-1))
    np.testing.assert_allclose(np.float32(output)[:, 1], weight, atol=0.01)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_attention_with_huge_scores_takes_the_largest(dtype):
    tokens = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
    output = _attend_to_second_channel(tokens, [0, 3e4, 1e4, 0], dtype)
    np.testing.assert_array_equal(np.float32(output), [tokens[1]] * 3)


def test_attention_dropout_differs_between_heads_and_sequences():
    # Values of one head are that head's unit vector, so that its output channel is the sum of
    # its kept weights: a multiple of 1/4 before, and of 1/2 after the scaling by 1/(1 - 0.5).
    width = 64
    params = {
        name: {'kernel': np.zeros((width, 8, 8)), 'bias': np.zeros((8, 8))}
        for name in ('query', 'key')
    }
    params['value'] = {'kernel': np.zeros((width, 8, 8)), 'bias': np.ones((8, 8))}
    params['out'] = {'kernel': np.eye(width).reshape(8, 8, width), 'bias': np.zeros(width)}
    module = SelfAttention(8, dropout_rate=0.5)
    rngs = {'dropout': jax.random.key(0)}
    tokens = np.zeros((3, 4, width), np.float32)
    output = module.apply({'params': params}, tokens, train=True, rngs=rngs)

    kept = np.asarray(output).reshape(3, 4, 8, 8)[..., 0]
    assert set(np.unique(kept)) <= {0, 0.5, 1, 1.5, 2}
    assert len(np.unique(kept.reshape(3, -1), axis=0)) == 3
    assert len(np.unique(np.moveaxis(kept, 2, 0).reshape(8, -1), axis=0)) == 8
    np.testing.assert_array_equal(module.apply({'params': params}, tokens), 1)
