"""k-NN attention: exactly k keys for each query, in every implementation, in JAX and in PyTorch."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from vivit_jax.layers import attention_kernels
from vivit_jax.layers.attention_kernels import (
    attention_weights,
    choose,
    dot_product_attention,
    record_choices,
)
from vivit_jax.layers.nearest import hide_distant, is_among_largest
from vivit_jax.layers.specification import TransformerSpecification, num_neighbours
from vivit_jax.layers.transformer import SelfAttention
from vivit_jax.models.rpe_stdt.relative_position import RelativePosition

pytestmark = pytest.mark.usefixtures('exact_matmuls')


def _random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _arrays(length, head_dim=4, dtype=jnp.float32):
    """Query, key and value, [2 n 3 d]."""
    return [jnp.asarray(_random(2, length, 3, head_dim, seed=i), dtype) for i in range(3)]


def _mask(logits, number):
    """Picks the largest logit of each row, the first of equal ones, `number` times."""
    mask = np.zeros(logits.shape, bool)
    for row in np.ndindex(logits.shape[:-1]):
        left = list(map(float, logits[row]))
        for _ in range(number):
            place = left.index(max(left))
            mask[row][place], left[place] = True, -np.inf
    return mask


def _ties():
    rows = _random(6, 9)
    rows[0] = 0
    rows[1] = [0, -0.0, 0, -0.0, 1, 1, 1, -1, -1]
    rows[2] = [3, 1, 2, 1, 3, 1, 2, 1, 3]
    rows[3] = np.round(rows[3])
    rows[4] *= 1e30
    rows[5] *= 1e-42  # subnormal numbers
    return rows


@pytest.mark.parametrize('number', [1, 2, 4, 6, 8, 9])
def test_mask_is_that_of_a_loop_also_for_ties(number):
    found = jax.jit(is_among_largest, static_argnums=1)(_ties(), number)
    np.testing.assert_array_equal(found, _mask(_ties(), number))
    hidden = np.asarray(hide_distant(_ties(), number / 9))
    np.testing.assert_allclose(hidden, np.where(found, _ties(), -np.inf), atol=1e-38)


def test_infinities_and_nan_are_the_largest():
    rows = np.float32([[1, np.inf, 2, -np.inf], [3, 1, np.nan, np.inf]])
    expected = [[False, True, True, False], [False, False, True, True]]
    np.testing.assert_array_equal(is_among_largest(rows, 2), expected)


@pytest.mark.parametrize(
    ('ratio', 'length', 'expected'),
    [(0.7, 196, 137), (0.7, 49, 34), (0.7, 16, 11), (0.7, 4, 2), (0.1, 4, 1), (0.29, 100, 29)],
)
def test_number_of_neighbours_is_a_share_of_the_tokens(ratio, length, expected):
    assert num_neighbours(ratio, length) == expected


def _formula(query, key, value, ratio, bias=0.0):
    """Softmax over the neighbours alone, in float64: the output and the weights."""
    query, key, value = (np.float64(x) for x in (query, key, value))
    scores = np.einsum('bqkd,bnkd->bkqn', query, key) / np.sqrt(query.shape[-1]) + bias
    mask = _mask(scores, int(ratio * scores.shape[-1]))
    weights = np.exp(scores - scores.max(-1, keepdims=True)) * mask
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum('bkqn,bnkd->bqkd', weights, value), weights


@pytest.fixture(params=['einsum', 'chunked', 'chunked_vectorized'])
def implementation(request, monkeypatch):
    """Chunks have 8 queries, of one head or of all heads."""
    monkeypatch.setattr(attention_kernels, '_CHUNK', 8)
    if request.param == 'chunked_vectorized':
        form = attention_kernels._chunked_form
        monkeypatch.setattr(attention_kernels, '_chunked_form', lambda _, *rest: form(False, *rest))
    return request.param.removesuffix('_vectorized')


def test_attention_equals_the_formula_with_the_gradient_of_its_neighbours(implementation):
    arrays, cotangent = _arrays(21), _random(2, 21, 3, 4, seed=4)
    output, weights = _formula(*arrays, 0.4)

    @jax.jit
    def run(*inputs):
        attend = functools.partial(
            dot_product_attention, implementation=implementation, knn_ratio=0.4
        )
        found, backward = jax.vjp(attend, *inputs)
        return found, backward(cotangent)

    found, gradients = run(*arrays)
    np.testing.assert_allclose(found, output, rtol=1e-4, atol=1e-5)
    by_weight = np.einsum('bqkd,bnkd->bkqn', cotangent, arrays[2])
    by_score = weights * (by_weight - (weights * by_weight).sum(-1, keepdims=True)) / 2
    expected = (
        np.einsum('bkqn,bnkd->bqkd', by_score, arrays[1]),
        np.einsum('bkqn,bqkd->bnkd', by_score, arrays[0]),
        np.einsum('bkqn,bqkd->bnkd', weights, cotangent),
    )
    for gradient, right in zip(gradients, expected, strict=True):
        np.testing.assert_allclose(gradient, right, rtol=1e-3, atol=1e-5)


def test_bias_takes_part_in_the_choice_of_neighbours():
    query, key, value = _arrays(9)
    bias = 3 * _random(2, 3, 9, 9, seed=5)
    found = dot_product_attention(query, key, value, bias, knn_ratio=0.5)
    np.testing.assert_allclose(found, _formula(query, key, value, 0.5, bias)[0], 1e-4, 1e-5)


def test_equal_tokens_have_exactly_k_neighbours():
    same = jnp.ones((1, 10, 2, 4))
    weights = np.asarray(attention_weights(same, same, knn_ratio=0.3))
    np.testing.assert_allclose(weights[..., :3], 1 / 3, rtol=1e-6)
    assert not weights[..., 3:].any()


@pytest.mark.parametrize('relative', [None, functools.partial(RelativePosition, (3, 3))])
def test_captured_weights_have_k_neighbours_and_make_the_output(random_params, relative):
    tokens = _random(2, 10, 16)
    module = SelfAttention(2, relative=relative, knn_ratio=0.5)
    params = random_params(module, tokens)
    output, captured = module.apply({'params': params}, tokens, capture_attention=True)
    assert ((captured['tokens'] > 0).sum(-1) == 5).all()
    np.testing.assert_allclose(captured['tokens'].sum(-1), 1, rtol=1e-5)
    plain, _ = module.apply({'params': params}, tokens)
    np.testing.assert_array_equal(plain, output)


def test_every_axis_has_neighbours_of_its_own(random_params):
    tokens = _random(1, 4, 10, 16)
    module = SelfAttention(4, ('time', 'space'), knn_ratio=0.5)
    params = random_params(module, tokens)
    _, captured = module.apply({'params': params}, tokens, capture_attention=True)
    assert {axis: set(np.ravel((x > 0).sum(-1))) for axis, x in captured.items()} == {
        'time': {2},
        'space': {5},
    }


def _program(implementation, **keywords):
    x = jax.ShapeDtypeStruct((2, 1200, 3, 4), jnp.float32)

    def loss(*inputs):
        return dot_product_attention(*inputs, implementation=implementation, **keywords).sum()

    return jax.jit(jax.grad(loss, (0, 1, 2))).trace(x, x, x).jaxpr


@pytest.mark.parametrize('implementation', ['einsum', 'chunked', 'auto'])
def test_ratio_of_one_is_the_program_without(implementation):
    def text(**keywords):
        # The jaxpr prints addresses of functions.
        program = jax.jit(
            functools.partial(dot_product_attention, implementation=implementation, **keywords)
        ).lower(*_arrays(300))
        return program.as_text()

    assert text(knn_ratio=1.0) == text()
    assert text(knn_ratio=0.5) != text()


def _sizes(jaxpr):
    """The sizes of all intermediate arrays."""
    for equation in jaxpr.eqns:
        yield from (x.aval.size for x in equation.outvars)
        for body in jaxprs_in_params(equation.params):
            yield from _sizes(body)


def test_chunks_never_hold_the_weights_of_all_queries():
    weights = 2 * 3 * 1200 * 1200
    assert max(_sizes(_program('einsum', knn_ratio=0.5).jaxpr)) == weights
    assert max(_sizes(_program('chunked', knn_ratio=0.5).jaxpr)) <= weights / 3


@pytest.mark.parametrize('name', ['cudnn', 'pallas'])
def test_fused_kernel_is_an_error_that_says_what_to_do(name):
    with pytest.raises(ValueError, match=f"'{name}' has no k-NN.* set knn_ratio to 1, or take"):
        TransformerSpecification(attention_implementation=name, knn_ratio=0.5)
    with pytest.raises(ValueError, match=f"'{name}' takes no knn_ratio=0.5"):
        dot_product_attention(*_arrays(4), implementation=name, knn_ratio=0.5)


@pytest.mark.parametrize('ratio', [0, -0.1, 1.1])
def test_ratio_out_of_range_is_an_error(ratio):
    with pytest.raises(ValueError, match=f'knn_ratio={ratio} must be above 0 and at most 1'):
        TransformerSpecification(knn_ratio=ratio)
    assert dataclasses.replace(TransformerSpecification(), knn_ratio=1).knn_ratio == 1


@pytest.mark.parametrize('platform', ['cpu', 'cuda', 'tpu'])
@pytest.mark.parametrize(('length', 'expected'), [(197, 'einsum'), (1569, 'chunked')])
def test_auto_takes_no_fused_kernel_and_is_lowered(any_gpu, platform, length, expected):
    x = jax.ShapeDtypeStruct((2, length, 2, 64), jnp.bfloat16)
    assert choose('cuda', length, 64, jnp.bfloat16) == 'cudnn'

    def loss(*inputs):
        return dot_product_attention(*inputs, knn_ratio=0.7).astype(jnp.float32).sum()

    with record_choices(platform) as taken:
        traced = jax.jit(jax.grad(loss, (0, 1, 2))).trace(x, x, x)
    assert taken == {length: expected}
    assert 'custom_call' not in traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize('number', [1, 4, 7])
def test_pytorch_hides_the_same_keys(number):
    torch = pytest.importorskip('torch', reason='needs PyTorch: the extra torch')
    from vivit_jax.layers.torch.transformer import mask_distant

    found = mask_distant(torch.tensor(_ties()), number / 9)
    np.testing.assert_array_equal(found == 0, _mask(_ties(), number))
    assert found.min() == -np.inf
