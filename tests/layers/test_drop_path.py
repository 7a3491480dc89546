import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_jax.layers.drop_path import DropPath


@pytest.mark.parametrize('rate', [0.1, 0.6])
@pytest.mark.parametrize('shape', [(3,), (2, 3, 2)])
def test_drop_path_zeroes_whole_examples_and_scales_the_others(rate, shape):
    branch = np.random.default_rng(0).uniform(1, 2, (4000, *shape)).astype(np.float32)
    rngs = {'dropout': jax.random.key(0)}
    output = np.asarray(DropPath(rate).apply({}, branch, train=True, rngs=rngs))

    axes = tuple(range(1, branch.ndim))
    zeroed = (output == 0).all(axes)
    np.testing.assert_allclose(output[~zeroed], branch[~zeroed] / (1 - rate), rtol=1e-6)
    # Five standard deviations of a share of 4000 examples.
    assert abs(zeroed.mean() - rate) < 5 * np.sqrt(rate * (1 - rate) / 4000)
    assert abs(output.mean() / branch.mean() - 1) < 5 * np.sqrt(rate / (1 - rate) / 4000)


def test_drop_path_is_identity_in_evaluation_and_at_rate_zero():
    branch = np.random.default_rng(0).normal(size=(6, 2, 3)).astype(np.float32)
    np.testing.assert_array_equal(DropPath(0.9).apply({}, branch), branch)
    rngs = {'dropout': jax.random.key(0)}
    np.testing.assert_array_equal(DropPath(0.0).apply({}, branch, train=True, rngs=rngs), branch)


def test_drop_path_keeps_the_dtype():
    branch = jnp.ones((4, 2), jnp.bfloat16)
    rngs = {'dropout': jax.random.key(0)}
    assert DropPath(0.5).apply({}, branch, train=True, rngs=rngs).dtype == jnp.bfloat16
