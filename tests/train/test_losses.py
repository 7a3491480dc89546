import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vivit_jax.augment.targets import smooth_one_hot
from vivit_jax.train.losses import binary_cross_entropy, class_weights, cross_entropy


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


def _hard_labels():
    return (np.random.default_rng(2).random((6, 5)) < 0.4).astype(np.float32)


def test_cross_entropy_with_weights_equals_pytorch():
    torch = pytest.importorskip('torch', reason='needs PyTorch')
    (logits, _), targets = _batch(), _soft_targets()
    weights = np.float32([0.5, 2, 1, 3, 0.1])
    expected = torch.nn.functional.cross_entropy(
        *map(torch.tensor, (logits, targets)), weight=torch.tensor(weights)
    )
    loss = cross_entropy(logits, targets, weights=weights)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_binary_cross_entropy_equals_pytorch():
    torch = pytest.importorskip('torch', reason='needs PyTorch')
    logits, targets = _batch()[0], np.random.default_rng(1).random((6, 5)).astype(np.float32)
    weights = np.float32([0.5, 2, 1, 3, 0.1])
    for weight in (None, weights):
        expected = torch.nn.functional.binary_cross_entropy_with_logits(
            *map(torch.tensor, (logits, targets)),
            weight=None if weight is None else torch.tensor(weight),
        )
        loss = binary_cross_entropy(logits, targets, weights=weight)
        np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize('gamma', [0.5, 1.0, 2.0, 5.0])
def test_focal_softmax_equals_the_paper(gamma):
    logits, labels = _batch()
    probabilities = np.exp(np.float64(logits))
    probabilities /= probabilities.sum(-1, keepdims=True)
    p = probabilities[np.arange(6), labels]
    expected = -((1 - p) ** gamma * np.log(p)).mean()
    one_hot = np.eye(5, dtype=np.float32)[labels]
    np.testing.assert_allclose(cross_entropy(logits, one_hot, gamma), expected, rtol=1e-5)


@pytest.mark.parametrize('gamma', [0.5, 2.0])
def test_focal_sigmoid_of_labels_equals_optax(gamma):
    logits, labels = _batch()[0], _hard_labels()
    expected = optax.sigmoid_focal_loss(logits, labels, gamma=gamma).mean()
    np.testing.assert_allclose(binary_cross_entropy(logits, labels, gamma), expected, rtol=1e-5)


def test_loss_of_mixed_targets_is_the_mean_of_the_losses():
    logits, weights = _batch()[0], np.float32([0.5, 2, 1, 3, 0.1])
    one, other = (
        np.eye(5, dtype=np.float32)[[0, 1, 2, 3, 4, 0]],
        np.eye(5, dtype=np.float32)[[1] * 6],
    )
    for loss in (cross_entropy, binary_cross_entropy):
        mixed = loss(logits, 0.7 * one + 0.3 * other, 2.0, weights)
        expected = 0.7 * loss(logits, one, 2.0, weights) + 0.3 * loss(logits, other, 2.0, weights)
        np.testing.assert_allclose(mixed, expected, rtol=1e-5)


@pytest.mark.parametrize('loss', [cross_entropy, binary_cross_entropy])
@pytest.mark.parametrize('gamma', [0.0, 0.5, 2.0])
def test_gradients_of_certain_answers_are_finite(loss, gamma):
    logits = jnp.array([[300.0, -300.0], [-300.0, 300.0]])
    for targets in (jnp.eye(2), jnp.eye(2)[::-1], jnp.full((2, 2), 0.5)):
        assert jnp.isfinite(jax.grad(loss)(logits, targets, gamma)).all()


def test_options_that_are_off_change_no_bit():
    logits, targets = _batch()[0], _soft_targets()
    expected = jax.jit(lambda logits, targets: optax.softmax_cross_entropy(logits, targets).mean())(
        logits, targets
    )
    assert jax.jit(cross_entropy)(logits, targets) == expected


@pytest.mark.parametrize('beta', [0.9, 0.999])
def test_class_weights_are_inverse_effective_numbers(beta):
    counts = np.array([1, 10, 500])
    effective = [sum(beta**i for i in range(n)) for n in counts]  # a geometric sum
    weights = class_weights(counts, beta)
    np.testing.assert_allclose(weights / weights[0], effective[0] / np.array(effective), rtol=1e-5)
    np.testing.assert_allclose((weights * counts).sum() / counts.sum(), 1, rtol=1e-6)


def test_class_weights_of_the_ends_of_beta():
    counts = {'verb': np.array([2, 6, 0]), 'noun': np.array([4, 4])}
    inverse = class_weights(counts, 1.0)
    np.testing.assert_allclose(inverse['verb'][:2], [8 / (2 * 2), 8 / (2 * 6)])  # n / (classes n_c)
    np.testing.assert_array_equal(inverse['noun'], 1)
    assert np.isfinite(inverse['verb']).all()
    np.testing.assert_array_equal(class_weights(counts, 0.0)['verb'], 1)
