import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from vivit_jax.augment.mixing import mixup

KEY = jax.random.key(0)


def _batch(num_clips=5, classes=4):
    rng = np.random.default_rng(0)
    clip = rng.random((num_clips, 2, 3, 4, 3), np.float32)
    return clip, np.eye(classes, dtype=np.float32)[rng.integers(classes, size=num_clips)]


def _mixup(key, clip, targets, alpha):
    return jax.jit(mixup, static_argnums=3)(key, clip, targets, alpha)


def _weights(key, num_clips, alpha):
    """Read off the mixture of clips that differ in all that they have."""
    eye = np.eye(num_clips, dtype=np.float32)
    return np.diag(_mixup(key, eye[:, None], eye, alpha)[1])


@pytest.mark.parametrize('alpha', [0.1, 1.0])
def test_mixup_equals_numpy_formula(alpha):
    clip, targets = _batch()
    weights = _weights(KEY, len(clip), alpha)
    output = _mixup(KEY, clip, targets, alpha)
    for mixed, x in zip(output, (clip, targets), strict=True):
        expected = [weights[i] * x[i] + (1 - weights[i]) * x[i - 1] for i in range(len(x))]
        assert mixed.dtype == np.float32
        np.testing.assert_allclose(mixed, expected, atol=1e-6)


def test_mixup_mixes_all_heads_alike():
    clip, targets = _batch()
    heads = {'verb': targets, 'noun': np.pad(targets[:, ::-1], ((0, 0), (2, 1)))}
    _, mixed = _mixup(KEY, clip, heads, 0.3)
    assert mixed.keys() == heads.keys()
    np.testing.assert_array_equal(mixed['verb'], _mixup(KEY, clip, targets, 0.3)[1])
    np.testing.assert_array_equal(mixed['noun'][:, 2:-1], mixed['verb'][:, ::-1])


@pytest.mark.parametrize('alpha', [0.1, 5.0])
def test_mixed_targets_are_probabilities(alpha):
    clip, targets = _batch(200)
    mixed_clip, mixed = _mixup(KEY, clip, targets, alpha)
    np.testing.assert_allclose(np.sum(mixed, axis=1), 1, atol=1e-6)
    assert np.min(mixed) >= 0
    assert np.min(mixed_clip) >= 0 and np.max(mixed_clip) <= 1


@pytest.mark.parametrize('alpha', [0.1, 0.3, 5.0])
def test_weights_follow_the_beta_distribution(alpha):
    weights = _weights(KEY, 1000, alpha)
    # Not at the ends, where float32 has no room for the infinite density of a small alpha.
    points = np.linspace(0.01, 0.99, 50)
    share_below = (weights[:, None] < points).mean(0)
    assert np.abs(share_below - scipy.stats.beta(alpha, alpha).cdf(points)).max() < 0.06
    assert abs(np.corrcoef(weights[1:], weights[:-1])[0, 1]) < 0.15


def test_mixup_follows_its_key():
    clip, targets = _batch()
    first, again, other = (
        _mixup(jax.random.key(seed), clip, targets, 0.3)[0] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    np.testing.assert_allclose(mixup(jax.random.key(1), clip, targets, 0.3)[0], first, atol=1e-6)


def test_mixup_before_and_after_normalisation_is_the_same():
    clip, targets = _batch()
    before = 2 * _mixup(KEY, clip, targets, 0.3)[0] - 1
    after = _mixup(KEY, 2 * clip - 1, targets, 0.3)[0]
    np.testing.assert_allclose(before, after, atol=1e-6)


def test_single_clip_stays():
    clip, targets = _batch(1)
    for mixed, x in zip(_mixup(KEY, clip, targets, 0.3), (clip, targets), strict=True):
        np.testing.assert_allclose(mixed, x, atol=1e-6)


def test_mixup_is_differentiable_in_the_clip():
    clip, targets = _batch()
    gradient = jax.grad(lambda clip: mixup(KEY, clip, targets, 0.3)[0].sum())(jnp.asarray(clip))
    weights = _weights(KEY, len(clip), 0.3)
    expected = weights + 1 - np.roll(weights, -1)
    np.testing.assert_allclose(gradient[:, 0, 0, 0, 0], expected, atol=1e-6)
