import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_jax.layers.grid import uniform_frame_indices
from vivit_jax.layers.tokenizers import Tokenizer


@pytest.mark.parametrize(
    ('num_frames', 'num_sampled_frames', 'expected'),
    [
        (10, 1, [5]),
        (9, 1, [4]),  # 4.5 to even
        (5, 1, [2]),  # 2.5 to even
        (7, 1, [4]),  # 3.5 to even
        (10, 3, [2, 5, 8]),  # 2.5, 5, 7.5
        (8, 4, [2, 3, 5, 6]),  # 1.6, 3.2, 4.8, 6.4
        (32, 16, [2, 4, 6, 8, 9, 11, 13, 15, 17, 19, 21, 23, 24, 26, 28, 30]),
        (4, 3, [1, 2, 3]),
        (4, 4, [0, 1, 2, 3]),
        (4, 9, [0, 1, 2, 3]),
    ],
)
def test_uniform_frame_indices_equal_table(num_frames, num_sampled_frames, expected):
    indices = uniform_frame_indices(num_frames, num_sampled_frames)
    np.testing.assert_array_equal(indices, expected)


def test_uniform_frame_indices_are_distinct_frames_of_the_clip():
    for num_frames in range(1, 40):
        for count in range(1, 40):
            indices = uniform_frame_indices(num_frames, count)
            assert len(indices) == min(num_frames, count)
            assert (np.diff(indices) > 0).all()
            assert indices[0] >= 0 and indices[-1] < num_frames


def _random(shape, seed):
    # NumPy would do the tokenizer's arithmetic itself.
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize('size', [(1, 4, 5), (2, 4, 6), (3, 2, 5)])
def test_tubelets_equal_strided_convolution(size):
    clip = _random((2, 6, 8, 30, 3), 0)
    params = {'kernel': _random((*size, 3, 5), 1), 'bias': _random(5, 2)}
    with jax.default_matmul_precision('highest'):
        output = Tokenizer(5, size, 'tubelet', 16).apply({'params': params}, clip)
        expected = jax.lax.conv_general_dilated(
            clip, params['kernel'], size, 'VALID', dimension_numbers=('NTHWC', 'THWIO', 'NTHWC')
        )
    assert output.shape == (2, 6 // size[0], 8 // size[1], 30 // size[2], 5)
    np.testing.assert_allclose(output, expected + params['bias'], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ('num_sampled_frames', 'frames'), [(2, [2, 5]), (3, [2, 4, 5]), (7, range(7)), (20, range(7))]
)
def test_uniform_frames_equal_convolution_of_each_frame(num_sampled_frames, frames):
    clip = _random((2, 7, 8, 12, 3), 0)
    params = {'kernel': _random((4, 6, 3, 5), 1), 'bias': _random(5, 2)}
    tokenizer = Tokenizer(5, (1, 4, 6), 'uniform_frames', num_sampled_frames)
    with jax.default_matmul_precision('highest'):
        output = tokenizer.apply({'params': params}, clip)
        expected = [
            jax.lax.conv_general_dilated(
                clip[:, frame],
                params['kernel'],
                (4, 6),
                'VALID',
                dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
            )
            for frame in frames
        ]
    expected = np.stack(expected, axis=1) + params['bias']
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ('shape', 'words'),
    [
        ((1, 5, 8, 8, 3), ['frames=5', 'multiple of 2']),
        ((1, 4, 9, 8, 3), ['height=9', 'multiple of 4']),
        ((1, 4, 8, 11, 3), ['width=11', 'multiple of 4']),
    ],
)
def test_tokenizer_names_the_size_that_does_not_divide(shape, words):
    tokenizer = Tokenizer(5, (2, 4, 4), 'tubelet', 16)
    with pytest.raises(ValueError) as error:
        jax.eval_shape(tokenizer.init, jax.random.key(0), np.zeros(shape, np.float32))
    for word in (*words, '(2, 4, 4)'):
        assert word in str(error.value)


@pytest.mark.parametrize('tokenizer', ['tubelet', 'uniform_frames'])
def test_tokenizer_kernel_has_fans_of_its_matrix(tokenizer):
    module = Tokenizer(64, (1, 8, 8), tokenizer, 4)
    params = module.init(jax.random.key(0), np.zeros((1, 4, 8, 8, 3), np.float32))['params']
    # Xavier: uniform within sqrt(6 / (inputs + outputs)).
    limit = np.sqrt(6 / (8 * 8 * 3 + 64))
    largest = np.abs(params['kernel']).max()
    assert 0.99 * limit < largest <= limit
    assert not np.any(params['bias'])


def test_tokenizer_computes_in_its_dtype():
    clip = _random((1, 2, 4, 4, 3), 0)
    params = {'kernel': _random((2, 4, 4, 3, 5), 1), 'bias': _random(5, 2)}
    output, exact = (
        Tokenizer(5, (2, 4, 4), 'tubelet', 16, dtype).apply({'params': params}, clip)
        for dtype in (jnp.bfloat16, jnp.float32)
    )
    assert (output.dtype, exact.dtype) == (jnp.bfloat16, jnp.float32)
    np.testing.assert_allclose(np.float32(output), exact, atol=0.03 * np.abs(exact).max())
