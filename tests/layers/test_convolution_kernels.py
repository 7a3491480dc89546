import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from vivit_jax.layers import convolution_kernels
from vivit_jax.layers.convolution_kernels import convolve

# Input, kernel, strides, depthwise.
CASES = {
    'depthwise 1d': ((2, 7, 4), (3, 1, 4), (1,), True),
    'depthwise 2d': ((2, 5, 7, 4), (3, 5, 1, 4), (1, 1), True),
    'depthwise 3d': ((2, 4, 3, 6, 4), (5, 3, 5, 1, 4), (1, 1, 1), True),
    'depthwise of a short clip': ((2, 1, 2, 3, 4), (5, 5, 5, 1, 4), (1, 1, 1), True),
    'dense 3d': ((2, 4, 5, 6, 4), (5, 3, 3, 4, 2), (1, 1, 1), False),
    'dense 3d with strides': ((2, 5, 8, 9, 3), (3, 7, 5, 3, 4), (2, 2, 3), False),
    'dense 2d': ((2, 5, 7, 4), (3, 3, 4, 2), (2, 1), False),
    'depthwise with strides': ((2, 5, 7, 4), (3, 3, 1, 4), (2, 1), True),
}

pytestmark = pytest.mark.usefixtures('exact_matmuls')


def _inputs(x_shape, kernel_shape, strides, dtype=np.float32):
    draw = np.random.default_rng(0).normal
    x, kernel = draw(size=x_shape), draw(size=kernel_shape)
    sizes = [-(-size // step) for size, step in zip(x_shape[1:-1], strides, strict=True)]
    weights = draw(size=(x_shape[0], *sizes, kernel_shape[-1]))
    return tuple(jnp.asarray(x, dtype) for x in (x, kernel, weights))


def _value_and_gradients(function, kernel_shape, strides, is_depthwise, x, kernel, weights):
    letters = 'THW'[: len(strides)]
    run = functools.partial(
        function,
        dimension_numbers=(f'N{letters}C', f'{letters}IO', f'N{letters}C'),
        feature_group_count=kernel_shape[-1] if is_depthwise else 1,
    )
    padding = [(size // 2, size // 2) for size in kernel_shape[:-2]]

    @jax.jit
    def all_of(x, kernel, weights):
        value, pull = jax.vjp(lambda x, kernel: run(x, kernel, strides, padding), x, kernel)
        return value, *pull(weights)

    return all_of(x, kernel, weights)


@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
def test_value_and_gradients_are_those_of_xla(case):
    x_shape, kernel_shape, strides, _ = case
    inputs = _inputs(x_shape, kernel_shape, strides)
    found, expected = (
        _value_and_gradients(function, *case[1:], *inputs)
        for function in (convolve, lax.conv_general_dilated)
    )
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == jnp.float32
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ('kernel_size', 'strides', 'axes'),
    [
        ((1, 3, 5), (1, 2, 1), 2),
        ((3, 1, 1), (2, 1, 1), 2),
        ((3, 3, 3), (1, 1, 1), 3),
        ((1, 3, 3), (2, 1, 1), 3),
        ((3, 1, 1), (1, 2, 2), 3),
    ],
)
def test_accelerators_convolve_along_two_axes_where_they_can(
    monkeypatch, kernel_size, strides, axes
):
    monkeypatch.setattr(
        convolution_kernels, '_by_platform', lambda native, on_cpu, *inputs: native(*inputs)
    )
    case = ((2, 4, 5, 6, 3), (*kernel_size, 3, 2), strides, False)
    inputs = _inputs(*case[:3])
    found, expected = (
        _value_and_gradients(function, *case[1:], *inputs)
        for function in (convolve, lax.conv_general_dilated)
    )
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    text = str(jax.make_jaxpr(lambda *x: _value_and_gradients(convolve, *case[1:], *x))(*inputs))
    numbers = re.findall(r'lhs_spec=\(([\d, ]+)\)', text)
    assert {len(places.split(',')) for places in numbers} == {axes + 2}


@pytest.mark.parametrize('name', ['lhs_dilation', 'rhs_dilation'])
def test_dilation_is_that_of_xla(name):
    x, kernel, _ = _inputs(*CASES['depthwise 2d'][:3])
    keywords = {
        'dimension_numbers': ('NHWC', 'HWIO', 'NHWC'),
        'feature_group_count': 4,
        name: (2, 1),
    }
    found, expected = (
        function(x, kernel, (1, 1), [(1, 1), (2, 2)], **keywords)
        for function in (convolve, lax.conv_general_dilated)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_products_of_16_bits_are_summed_in_32():
    case = CASES['depthwise 3d']
    inputs = _inputs(*case[:3], dtype=jnp.bfloat16)
    found = _value_and_gradients(convolve, *case[1:], *inputs)
    exact = _value_and_gradients(
        lax.conv_general_dilated, *case[1:], *(x.astype(jnp.float32) for x in inputs)
    )
    for one, other in zip(found, exact, strict=True):
        assert one.dtype == jnp.bfloat16
        np.testing.assert_allclose(
            one.astype(jnp.float32), other, rtol=2**-8, atol=np.abs(other).max() * 2**-16
        )


def test_accelerators_have_convolutions_of_their_own():
    x_shape, kernel_shape, strides, _ = CASES['depthwise 3d']
    x, kernel, _ = _inputs(x_shape, kernel_shape, strides)

    def run(x, kernel):
        return convolve(
            x,
            kernel,
            strides,
            [(size // 2, size // 2) for size in kernel_shape[:-2]],
            dimension_numbers=('NTHWC', 'THWIO', 'NTHWC'),
            feature_group_count=kernel_shape[-1],
        )

    traced = jax.jit(run).trace(x, kernel)
    texts = {
        platform: traced.lower(lowering_platforms=(platform,)).as_text()
        for platform in ('cpu', 'cuda', 'tpu')
    }
    assert {name: 'stablehlo.convolution' in text for name, text in texts.items()} == {
        'cpu': False,
        'cuda': True,
        'tpu': True,
    }
    assert 'stablehlo.while' not in texts['tpu']
