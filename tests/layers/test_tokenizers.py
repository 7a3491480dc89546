import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_jax.layers.grid import uniform_frame_indices
from vivit_jax.layers.specification import TransformerSpecification
from vivit_jax.layers.tokens import Tokenizer
from vivit_jax.models.registry import create_model


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
        output = Tokenizer(5, size).apply({'params': params}, clip)
        expected = jax.lax.conv_general_dilated(
            clip, params['kernel'], size, 'VALID', dimension_numbers=('NTHWC', 'THWIO', 'NTHWC')
        )
    assert output.shape == (2, 6 // size[0], 8 // size[1], 30 // size[2], 5)
    np.testing.assert_allclose(output, expected + params['bias'], rtol=1e-5, atol=1e-5)


def test_patches_of_frames_equal_convolution_of_each_frame():
    clip = _random((2, 7, 8, 12, 3), 0)
    params = {'kernel': _random((4, 6, 3, 5), 1), 'bias': _random(5, 2)}
    with jax.default_matmul_precision('highest'):
        output = Tokenizer(5, (4, 6)).apply({'params': params}, clip)
        expected = [
            jax.lax.conv_general_dilated(
                clip[:, frame],
                params['kernel'],
                (4, 6),
                'VALID',
                dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
            )
            for frame in range(7)
        ]
    expected = np.stack(expected, axis=1) + params['bias']
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ('clip_shape', 'words'),
    [
        ((5, 8, 8), ['frames=5', 'multiple of 2']),
        ((4, 9, 8), ['height=9', 'multiple of 4']),
        ((4, 8, 11), ['width=11', 'multiple of 4']),
    ],
)
def test_grid_names_the_size_that_does_not_divide(clip_shape, words):
    spec = TransformerSpecification(tubelet_size=(2, 4, 4))
    assert spec.grid((6, 8, 12)) == (3, 2, 3)
    with pytest.raises(ValueError) as error:
        spec.grid(clip_shape)
    for word in (*words, '(2, 4, 4)'):
        assert word in str(error.value)


@pytest.mark.parametrize(
    ('num_sampled_frames', 'frames'), [(2, [2, 5]), (3, [2, 4, 5]), (7, range(7)), (20, range(7))]
)
def test_uniform_frames_are_embedded_and_no_others(num_sampled_frames, frames):
    keywords = {'num_sampled_frames': num_sampled_frames, 'hidden_size': 12, 'num_heads': 1}
    model = create_model(
        'vivit_joint',
        tokenizer='uniform_frames',
        tubelet_size=(1, 4, 6),
        num_layers=0,
        position='none',
        pool='mean',
        **keywords,
    )
    clip = _random((2, 7, 8, 12, 3), 0)
    variables = model.init(jax.random.key(0), clip)
    assert model.spec.grid((7, 8, 12)) == (len(frames), 2, 2)
    gradient = jax.grad(lambda clip: model.apply(variables, clip).features[:, 0].sum())(clip)
    seen = np.abs(gradient).max(axis=(0, 2, 3, 4)) > 1e-6
    np.testing.assert_array_equal(np.flatnonzero(seen), list(frames))


@pytest.mark.parametrize('patch_size', [(1, 8, 8), (8, 8)])
def test_tokenizer_kernel_has_fans_of_its_matrix(patch_size):
    module = Tokenizer(64, patch_size)
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
        Tokenizer(5, (2, 4, 4), dtype).apply({'params': params}, clip)
        for dtype in (jnp.bfloat16, jnp.float32)
    )
    assert (output.dtype, exact.dtype) == (jnp.bfloat16, jnp.float32)
    np.testing.assert_allclose(np.float32(output), exact, atol=0.03 * np.abs(exact).max())
