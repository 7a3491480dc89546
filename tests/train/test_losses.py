import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_jax.train.losses import cross_entropy


def _batch():
    rng = np.random.default_rng(0)
    return rng.normal(0, 3, (6, 5)).astype(np.float32), rng.integers(0, 5, 6)


@pytest.mark.parametrize('smoothing', [0.0, 0.1, 0.3])
def test_cross_entropy_equals_formula(smoothing):
    logits, labels = _batch()
    log_probabilities = np.log(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))
    expected = [
        -(1 - smoothing) * row[label] - smoothing / 5 * row.sum()
        for row, label in zip(log_probabilities, labels, strict=True)
    ]
    loss = cross_entropy(logits, labels, label_smoothing=smoothing)
    np.testing.assert_allclose(loss, np.mean(expected), rtol=1e-5)


@pytest.mark.parametrize('smoothing', [0.0, 0.2])
def test_cross_entropy_of_equal_logits_is_log_of_classes(smoothing):
    loss = cross_entropy(jnp.full((3, 7), 2.0), jnp.array([0, 3, 6]), label_smoothing=smoothing)
    np.testing.assert_allclose(loss, np.log(7), rtol=1e-6)


def test_cross_entropy_gradient_is_probability_minus_target():
    logits, labels = _batch()
    grad = jax.grad(lambda x: cross_entropy(x, labels, label_smoothing=0.1))(logits)
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    target = 0.9 * np.eye(5)[labels] + 0.1 / 5
    np.testing.assert_allclose(grad, (probabilities - target) / 6, atol=1e-6)


def test_cross_entropy_of_bfloat16_and_huge_logits_is_float32():
    loss = cross_entropy(jnp.array([[300.0, 1.0]], jnp.bfloat16), jnp.array([1]))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, 299)  # bfloat16 has 298 and 300
