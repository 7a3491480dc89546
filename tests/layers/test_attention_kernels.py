"""Every implementation of attention against the formula and its derivative, in NumPy."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.experimental.pallas import tpu as pltpu
from jax.experimental.pallas.ops.gpu import attention as gpu_kernel
from jax.experimental.pallas.ops.tpu import flash_attention as tpu_kernel

from vivit_jax.layers import attention_kernels, fused_attention
from vivit_jax.layers.attention_kernels import (
    attention_weights,
    choose,
    dot_product_attention,
    record_choices,
)

TOLERANCES = {jnp.float32: 1e-5, jnp.bfloat16: 1e-2}

pytestmark = pytest.mark.usefixtures('exact_matmuls')


@pytest.fixture(params=['einsum', 'chunked', 'chunked_vectorized'])
def implementation(request, monkeypatch):
    """Implementations that run everywhere; chunks have 8 queries, of one head or of all heads."""
    monkeypatch.setattr(attention_kernels, '_CHUNK', 8)
    if request.param == 'chunked_vectorized':
        form = attention_kernels._chunked_form
        monkeypatch.setattr(attention_kernels, '_chunked_form', lambda _, *rest: form(False, *rest))
    return request.param.removesuffix('_vectorized')


def _arrays(length, head_dim, dtype=jnp.float32):
    """Query, key, value and a gradient of the output, [2 n 3 d]."""
    rng = np.random.default_rng(length)
    return [jnp.asarray(rng.normal(size=(2, length, 3, head_dim)), dtype) for _ in range(4)]


def _formula(query, key, value, grad, mask=1.0):
    """The output and the gradients of the three inputs; `mask` [b k q n] multiplies weights."""
    query, key, value, grad = (np.float64(x) for x in (query, key, value, grad))
    scale = query.shape[-1] ** -0.5
    scores = np.einsum('bqkd,bnkd->bkqn', query, key) * scale
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    output = np.einsum('bkqn,bnkd->bqkd', weights * mask, value)
    grad_weights = np.einsum('bqkd,bnkd->bkqn', grad, value) * mask
    grad_scores = weights * (grad_weights - (weights * grad_weights).sum(-1, keepdims=True))
    return (
        output,
        np.einsum('bkqn,bnkd->bqkd', grad_scores, key) * scale,
        np.einsum('bkqn,bqkd->bnkd', grad_scores, query) * scale,
        np.einsum('bkqn,bqkd->bnkd', weights * mask, grad),
    )


def _output_and_gradients(query, key, value, grad, **keywords):
    @jax.jit
    def run(*inputs):
        output, backward = jax.vjp(lambda *x: dot_product_attention(*x, **keywords), *inputs)
        return output, *backward(grad)

    return run(query, key, value)


def _assert_near(values, expected, dtype):
    for value, right in zip(values, expected, strict=True):
        assert value.dtype == dtype
        error = np.linalg.norm(np.float64(value) - right)
        # With a single token, queries and keys have no gradient.
        assert error <= TOLERANCES[dtype] * max(np.linalg.norm(right), 1)


@pytest.mark.parametrize(
    ('length', 'dtype'),
    [
        *((length, jnp.float32) for length in (1, 7, 8, 9, 16, 29)),
        *((length, jnp.bfloat16) for length in (8, 29)),
    ],
)
def test_attention_equals_formula_with_gradients(implementation, length, dtype):
    arrays = _arrays(length, 4, dtype)
    values = _output_and_gradients(*arrays, implementation=implementation)
    _assert_near(values, _formula(*arrays), dtype)


def test_weights_equal_formula():
    query, key, _, _ = _arrays(5, 4)
    weights = attention_weights(query, key)
    value = jnp.broadcast_to(jnp.eye(5)[:, None], (2, 5, 3, 5))
    expected = _formula(query, key, value, value)[0]  # a different value for each token
    np.testing.assert_allclose(weights.swapaxes(1, 2), expected, rtol=1e-5)
    assert weights.shape == (2, 3, 5, 5)


def test_softmax_in_bfloat16_has_float32_scores(implementation):
    # 1/2 (32, 2) . (16, 0) = 256 and 1/2 (32, 2) . (16, 1) = 257: one number to bfloat16.
    query = jnp.zeros((1, 2, 1, 4)).at[..., :2].set(jnp.array([32, 2]))
    key = jnp.zeros((1, 2, 1, 4)).at[..., 0].set(16).at[:, 1, :, 1].set(1)
    arrays = (x.astype(jnp.bfloat16) for x in (query, key, key))
    output = dot_product_attention(*arrays, implementation=implementation)
    assert output.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float32(output)[..., 1], 1 / (1 + np.exp(-1)), atol=0.01)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_huge_scores_take_the_largest_with_finite_gradients(implementation, dtype):
    query, key, value, grad = _arrays(9, 4, dtype)
    key = key.at[:, 5].set(jnp.abs(key).max() * 2)
    query = jnp.abs(query) * 3e4 + 3e4
    output, *grads = _output_and_gradients(query, key, value, grad, implementation=implementation)
    expected = np.broadcast_to(np.float32(value)[:, 5:6], output.shape)
    np.testing.assert_array_equal(np.float32(output), expected)
    assert all(np.isfinite(np.float32(x)).all() for x in grads)


def test_dropout_drops_and_scales_weights_independently(implementation):
    # With the identity as values, the output is the weights.
    rate, length = 0.3, 40
    query, key, _, _ = _arrays(length, length)
    value = jnp.broadcast_to(jnp.eye(length)[:, None], (2, length, 3, length))
    dropped = dot_product_attention(
        query,
        key,
        value,
        implementation=implementation,
        dropout_rate=rate,
        dropout_key=jax.random.key(0),
    )
    dropped = np.asarray(dropped).swapaxes(1, 2)
    weights = attention_weights(query, key)
    is_kept = dropped != 0
    np.testing.assert_allclose(dropped[is_kept], (weights / (1 - rate))[is_kept], rtol=1e-5)
    # Five standard deviations of a share.
    assert abs(is_kept.mean() - 0.7) < 5 * np.sqrt(rate * (1 - rate) / is_kept.size)
    # No two examples, heads, chunks or queries have the same mask.
    assert len(np.unique(is_kept.reshape(-1, length), axis=0)) == 2 * 3 * length


def test_mean_over_dropout_keys_is_the_output_without_dropout(implementation):
    query, key, value, _ = _arrays(9, 4)

    @jax.jit
    @jax.vmap
    def run(dropout_key):
        return dot_product_attention(
            query,
            key,
            value,
            implementation=implementation,
            dropout_rate=0.5,
            dropout_key=dropout_key,
        )

    outputs = np.asarray(run(jax.random.split(jax.random.key(0), 1000)))
    expected = _formula(query, key, value, value)[0]
    deviation = outputs.std(0) / np.sqrt(len(outputs))
    assert deviation.min() > 1e-4
    assert (np.abs(outputs.mean(0) - expected) < 5 * deviation).all()


def test_gradients_with_dropout_use_the_masks_of_the_output(implementation):
    keywords = {
        'implementation': implementation,
        'dropout_rate': 0.5,
        'dropout_key': jax.random.key(3),
    }
    length = 11
    arrays = _arrays(length, length)
    identity = jnp.broadcast_to(jnp.eye(length)[:, None], (2, length, 3, length))
    dropped = dot_product_attention(*arrays[:2], identity, **keywords)
    mask = 2 * (np.asarray(dropped).swapaxes(1, 2) != 0)
    _assert_near(_output_and_gradients(*arrays, **keywords), _formula(*arrays, mask), jnp.float32)


@pytest.mark.parametrize('implementation', ['cudnn', 'pallas'])
def test_dropout_of_a_fused_kernel_is_an_error(implementation):
    query, key, value, _ = _arrays(4, 8)
    with pytest.raises(ValueError, match=f"'{implementation}' has no dropout"):
        dot_product_attention(
            query,
            key,
            value,
            implementation=implementation,
            dropout_rate=0.1,
            dropout_key=jax.random.key(0),
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ('length', 'head_dim', 'longest_block', 'dtype'),
    [
        (40, 16, 640, jnp.float32),  # padded to one block
        (130, 16, 128, jnp.float32),  # padded to two blocks, of which the second is nearly empty
        (128, 16, 128, jnp.bfloat16),  # none
        (130, 200, 640, jnp.float32),  # channels too
    ],
)
def test_tpu_kernel_in_simulation_equals_formula_with_gradients(
    monkeypatch, length, head_dim, longest_block, dtype
):
    monkeypatch.setattr(fused_attention, '_LONGEST_TPU_BLOCK', longest_block)
    arrays = _arrays(length, head_dim, dtype)
    with pltpu.force_tpu_interpret_mode():
        values = _output_and_gradients(*arrays, implementation='pallas')
    _assert_near(values, _formula(*arrays), dtype)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    ('length', 'head_dim'), [(3137, 64), (3137, 80), (3137, 200), (513, 64), (2048, 256)]
)
def test_tpu_kernel_is_lowered_for_tpu_with_gradients(length, head_dim, dtype):
    def attend(*inputs):
        return dot_product_attention(*inputs, implementation='pallas')

    def loss(*inputs):
        return attend(*inputs).astype(jnp.float32).sum()

    x = jax.ShapeDtypeStruct((2, length, 2, head_dim), dtype)
    for function, num_kernels in ((attend, 1), (jax.grad(loss, (0, 1, 2)), 3)):
        program = export.export(jax.jit(function), platforms=['tpu'])(x, x, x)
        assert program.mlir_module().count('custom_call @tpu_custom_call') == num_kernels
        assert all(out.shape == x.shape for out in program.out_avals)


@pytest.mark.parametrize(
    ('length', 'padded_length', 'block'),
    [(40, 128, 128), (513, 640, 640), (3137, 3200, 640), (2048, 2048, 512), (6401, 6528, 384)],
)
def test_tpu_blocks_divide_the_padded_length_and_fit_the_memory(
    monkeypatch, length, padded_length, block
):
    calls = []

    def record(query, key, value, *, block_sizes, **keywords):
        calls.append((query.shape[2], block_sizes))
        return query

    monkeypatch.setattr(tpu_kernel, 'flash_attention', record)
    x = jnp.zeros((1, length, 1, 8))
    assert dot_product_attention(x, x, x, implementation='pallas').shape == x.shape
    sizes = {
        name: block for name in tpu_kernel.BlockSizes.__dataclass_fields__ if name != 'block_b'
    }
    assert calls == [(padded_length, tpu_kernel.BlockSizes(block_b=1, **sizes))]


@pytest.mark.parametrize('length', [17, 130, 197, 3137])
@pytest.mark.parametrize('dtype', [jnp.bfloat16])
def test_cudnn_equals_formula_with_gradients(length, dtype):
    if jax.default_backend() != 'gpu' or not fused_attention.has_cudnn(64, dtype):
        pytest.skip('needs a GPU of the Ampere generation or later with cuDNN')
    arrays = _arrays(length, 64, dtype)
    values = _output_and_gradients(*arrays, implementation='cudnn')
    _assert_near(values, _formula(*arrays), dtype)


@pytest.mark.parametrize('length', [17, 200])
def test_gpu_kernel_sees_no_padding(monkeypatch, length):
    def masked(query, key, value, segments, *, sm_scale):
        assert query.shape[1] == segments.shape[1] and query.shape[1] % 32 == 0
        scores = jnp.einsum('bqkd,bnkd->bkqn', query, key) * sm_scale
        is_same = segments[:, None, :, None] == segments[:, None, None, :]
        weights = jax.nn.softmax(jnp.where(is_same, scores, -jnp.inf))
        return jnp.einsum('bkqn,bnkd->bqkd', weights, value)

    monkeypatch.setattr(gpu_kernel, 'mha', masked)
    arrays = _arrays(length, 4)
    output, backward = jax.vjp(fused_attention.gpu_attention, *arrays[:3])
    _assert_near((output, *backward(arrays[3])), _formula(*arrays), jnp.float32)


@pytest.mark.parametrize(
    ('platform', 'has_cudnn', 'length', 'expected'),
    [
        ('cpu', False, 197, 'einsum'),
        ('cpu', True, 3137, 'chunked'),
        ('cuda', True, 17, 'einsum'),
        ('cuda', True, 197, 'cudnn'),
        ('cuda', True, 3137, 'cudnn'),
        ('cuda', False, 197, 'einsum'),
        ('cuda', False, 3137, 'chunked'),
        ('tpu', True, 197, 'einsum'),
        ('tpu', False, 3137, 'pallas'),
        ('rocm', True, 3137, 'chunked'),
    ],
)
def test_auto_chooses_by_platform_and_length(monkeypatch, platform, has_cudnn, length, expected):
    monkeypatch.setattr(attention_kernels, 'has_cudnn', lambda head_dim, dtype: has_cudnn)
    assert choose(platform, length, 64, jnp.bfloat16) == expected
    without_kernels = 'einsum' if length <= 256 else 'chunked'
    assert choose(platform, length, 64, jnp.bfloat16, drops=True) == without_kernels
    assert choose(platform, length, 64, jnp.bfloat16, has_bias=True) == 'einsum'


def test_without_a_gpu_there_is_no_cudnn():
    if jax.default_backend() == 'gpu':
        pytest.skip('there is a GPU')
    assert not fused_attention.has_cudnn(64, jnp.bfloat16)


@pytest.mark.parametrize(
    ('head_dim', 'dtype', 'expected'),
    [
        (24, jnp.bfloat16, True),
        (128, jnp.float16, True),
        (12, jnp.bfloat16, False),
        (64, jnp.float32, False),
    ],
)
def test_cudnn_takes_16_bits_and_heads_of_whole_eights(any_gpu, head_dim, dtype, expected):
    assert fused_attention.has_cudnn(head_dim, dtype) == expected


def _count_kernels(program):
    return len(re.findall(r'custom_call @(?:__cudnn|tpu_custom_call|__gpu)', program))


@pytest.mark.parametrize(
    ('length', 'dtype', 'kernels'),
    [
        (17, jnp.bfloat16, {'cuda': 0, 'tpu': 0, 'cpu': 0}),
        (197, jnp.bfloat16, {'cuda': 2, 'tpu': 0, 'cpu': 0}),
        (196, jnp.bfloat16, {'cuda': 2, 'tpu': 0, 'cpu': 0}),
        (1569, jnp.bfloat16, {'cuda': 2, 'tpu': 3, 'cpu': 0}),
        (1569, jnp.float32, {'cuda': 0, 'tpu': 3, 'cpu': 0}),
    ],
)
@pytest.mark.parametrize('remat', [False, True])
def test_one_traced_program_has_the_kernels_of_each_platform(
    any_gpu, length, dtype, kernels, remat
):
    def loss(*inputs):
        return dot_product_attention(*inputs).astype(jnp.float32).sum()

    x = jax.ShapeDtypeStruct((2, length, 2, 64), dtype)
    gradients = jax.grad(jax.checkpoint(loss) if remat else loss, (0, 1, 2))
    traced = jax.jit(gradients).trace(x, x, x)
    for platform, number in kernels.items():
        program = traced.lower(lowering_platforms=(platform,)).as_text()
        assert _count_kernels(program) == number
        if platform == 'cuda' and number:  # cuDNN takes all lengths as they are
            assert 'stablehlo.pad' not in program


def test_choices_are_recorded_by_length(any_gpu):
    long, short = (jax.ShapeDtypeStruct((2, n, 2, 64), jnp.bfloat16) for n in (1569, 17))
    for platform, expected in (('cuda', 'cudnn'), ('tpu', 'pallas'), ('rocm', 'chunked')):
        with record_choices(platform) as taken:
            jax.eval_shape(lambda *x: dot_product_attention(*x), long, long, long)
            jax.eval_shape(lambda *x: dot_product_attention(*x), short, short, short)
        assert taken == {1569: expected, 17: 'einsum'}


def test_attention_by_a_kernel_of_another_device_is_an_error():
    query, key, value, _ = _arrays(4, 8)
    if jax.default_backend() != 'cpu':
        pytest.skip('there is an accelerator')
    with pytest.raises(ValueError, match='interpret'):
        dot_product_attention(query, key, value, implementation='pallas')


@pytest.mark.parametrize('name', ['einsum', 'chunked'])
@pytest.mark.parametrize('platform', ['cpu', 'cuda', 'tpu'])
def test_gradient_of_a_16_bit_model_multiplies_in_16_bits(name, platform):
    def loss(*inputs):
        return dot_product_attention(*inputs, implementation=name).astype(jnp.float32).sum()

    x = jax.ShapeDtypeStruct((2, 24, 2, 8), jnp.bfloat16)
    traced = jax.jit(jax.grad(loss, (0, 1, 2))).trace(x, x, x)
    program = traced.lower(lowering_platforms=(platform,)).as_text()
    products = re.findall(r'stablehlo\.dot_general.*: \((.*)\) ->', program)
    assert len(products) >= 5
    assert all('bf16' in operands and 'f32' not in operands for operands in products)
