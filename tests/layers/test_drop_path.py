import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_jax.layers.transformer import DropPath

RNGS = {'dropout': jax.random.key(0)}


@pytest.mark.parametrize('is_traced', [False, True])
@pytest.mark.parametrize('rate', [0.1, 0.6])
@pytest.mark.parametrize('shape', [(3,), (2, 3, 2)])
def test_drop_path_zeroes_whole_examples_and_scales_the_others(rate, shape, is_traced):
    branch = np.random.default_rng(0).uniform(1, 2, (4000, *shape)).astype(np.float32)

    def apply(rate):
        return DropPath().apply({}, branch, rate, train=True, rngs=RNGS)

    output = np.asarray(jax.jit(apply)(rate) if is_traced else apply(rate))
    axes = tuple(range(1, branch.ndim))
    zeroed = (output == 0).all(axes)
    np.testing.assert_allclose(output[~zeroed], branch[~zeroed] / (1 - rate), rtol=1e-5)
    # Five standard deviations of a share of 4000 examples.
    assert abs(zeroed.mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / 4000)
    assert abs(output.mean() / branch.mean() - 1) < 5 * np.sqrt(rate / (1 - rate) / 4000)


def test_drop_path_is_identity_in_evaluation_and_at_rate_zero_or_none():
    branch = np.random.default_rng(0).normal(size=(6, 2, 3)).astype(np.float32)
    np.testing.assert_array_equal(DropPath().apply({}, branch, 0.9), branch)
    np.testing.assert_array_equal(DropPath().apply({}, branch, None, train=True), branch)
    output = DropPath().apply({}, branch, 0.0, train=True, rngs=RNGS)
    np.testing.assert_array_equal(output, branch)


@pytest.mark.parametrize('rate', [0.5, np.float32(0.5)])
def test_drop_path_keeps_the_dtype(rate):
    branch = jnp.ones((4, 2), jnp.bfloat16)
    output = DropPath().apply({}, branch, rate, train=True, rngs=RNGS)
    assert output.dtype == jnp.bfloat16
