import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_jax.augment.targets import smooth_one_hot
from vivit_jax.train.losses import cross_entropy


def _batch():
    rng = np.random.default_rng(0)
    return rng.normal(0, 3, (6, 5)).astype(np.float32), rng.integers(0, 5, 6)


def _soft_targets():
    targets = np.random.default_rng(1).random((6, 5)).astype(np.float32)
    return targets / targets.sum(-1, keepdims=True)


def test_smooth_targets_of_a_worked_example():
    targets = smooth_one_hot(jnp.array([3, 0]), 4, 0.2)
    expected = [[0.05, 0.05, 0.05, 0.85], [0.85, 0.05, 0.05, 0.05]]
    np.testing.assert_allclose(targets, expected, rtol=1e-6)
    np.testing.assert_array_equal(smooth_one_hot(jnp.array([1]), 3, 0.0), [[0, 1, 0]])


@pytest.mark.parametrize('smoothing', [0.0, 0.1, 0.3])
def test_cross_entropy_equals_formula(smoothing):
    logits, labels = _batch()
    log_probabilities = np.log(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))
    expected = [
        -(1 - smoothing) * row[label] - smoothing / 5 * row.sum()
        for row, label in zip(log_probabilities, labels, strict=True)
    ]
    loss = cross_entropy(logits, smooth_one_hot(labels, 5, smoothing))
    np.testing.assert_allclose(loss, np.mean(expected), rtol=1e-5)


def test_cross_entropy_takes_any_soft_targets():
    logits, targets = _batch()[0], _soft_targets()
    expected = [
        -sum(t * (x - np.log(np.exp(row).sum())) for x, t in zip(row, target, strict=True))
        for row, target in zip(np.float64(logits), targets, strict=True)
    ]
    np.testing.assert_allclose(cross_entropy(logits, targets), np.mean(expected), rtol=1e-5)


@pytest.mark.parametrize('smoothing', [0.0, 0.2])
def test_cross_entropy_of_equal_logits_is_log_of_classes(smoothing):
    targets = smooth_one_hot(jnp.array([0, 3, 6]), 7, smoothing)
    np.testing.assert_allclose(cross_entropy(jnp.full((3, 7), 2.0), targets), np.log(7), rtol=1e-6)


def test_cross_entropy_gradient_is_probability_minus_target():
    logits, targets = _batch()[0], _soft_targets()
    grad = jax.grad(cross_entropy)(logits, targets)
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(grad, (probabilities - targets) / 6, atol=1e-6)


def test_cross_entropy_of_bfloat16_and_huge_logits_is_float32():
    loss = cross_entropy(jnp.array([[300.0, 1.0]], jnp.bfloat16), jnp.array([[0.0, 1.0]]))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, 299)  # bfloat16 has 298 and 300
