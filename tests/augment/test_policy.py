import jax
import numpy as np
import pytest

from vivit_jax.augment.policy import Augmentation, augment, normalize, to_unit_range
from vivit_jax.data.preprocessing import Preprocessing

ALL = Augmentation(flip=0.5, color_jitter=0.5, color_drop=0.5)


def _rgb(num_clips=2, shape=(3, 4, 5, 3)):
    return np.random.default_rng(0).integers(0, 256, (num_clips, *shape), np.uint8)


def _augment(key, rgb, policy):
    return np.asarray(jax.jit(augment, static_argnums=2)(key, rgb, policy))


def test_augment_without_probabilities_only_scales():
    output = _augment(jax.random.key(0), _rgb(), Augmentation())
    assert output.dtype == np.float32
    np.testing.assert_allclose(output, _rgb() / 255, atol=1e-7)


def test_augment_with_flip_mirrors_the_width():
    output = _augment(jax.random.key(0), _rgb(), Augmentation(flip=1.0))
    np.testing.assert_allclose(output, _rgb()[:, :, :, ::-1] / 255, atol=1e-7)


def test_augment_without_layers_ignores_magnitude_and_mixup():
    output = _augment(
        jax.random.key(0), _rgb(), Augmentation(randaugment_magnitude=20.0, mixup_alpha=0.3)
    )
    np.testing.assert_allclose(output, _rgb() / 255, atol=1e-7)


def test_augment_randaugments_each_clip_by_itself():
    rgb = np.repeat(_rgb(1, (1, 6, 6, 3)), 60, axis=0)
    policy = Augmentation(randaugment_layers=1, randaugment_magnitude=15.0)
    output = _augment(jax.random.key(0), rgb, policy)
    assert len(np.unique(output.reshape(60, -1), axis=0)) > 8  # of twelve operations


def test_augment_changes_color_after_randaugment():
    rgb = _rgb(30, (1, 6, 6, 3))
    policy = Augmentation(color_drop=1.0, randaugment_layers=2, randaugment_magnitude=15.0)
    output = _augment(jax.random.key(0), rgb, policy)
    np.testing.assert_allclose(np.ptp(output, axis=-1), 0, atol=1e-6)


@pytest.mark.parametrize('field', ['flip', 'color_jitter', 'color_drop'])
def test_augment_draws_for_each_clip(field):
    rgb = _rgb(100, (2, 3, 4, 3))
    output = _augment(jax.random.key(0), rgb, Augmentation(**{field: 0.4}))
    by_frame = np.abs(output - rgb / 255).max((2, 3, 4)) > 1e-6
    np.testing.assert_array_equal(by_frame[:, 0], by_frame[:, 1])
    assert 0.2 < by_frame.mean() < 0.6  # four standard deviations of 0.05


def test_augment_draws_its_parts_independently():
    rgb = np.broadcast_to(_rgb(1, (1, 2, 4, 3)), (200, 1, 2, 4, 3))
    output = _augment(jax.random.key(0), rgb, Augmentation(flip=0.5, color_drop=0.5))
    gray = np.ptp(output, axis=-1).max((1, 2, 3)) < 1e-6
    luma = output @ np.array([0.299, 0.587, 0.114])
    flipped = np.abs(luma - luma[:, :, :, ::-1][~gray][0]).max((1, 2, 3)) < 1e-6
    for a in (gray, ~gray):
        for b in (flipped, ~flipped):
            assert 25 < (a & b).sum() < 75  # of 200, four standard deviations


def test_augment_gives_equal_clips_different_draws():
    rgb = np.broadcast_to(_rgb(1), (4, *_rgb(1).shape[1:]))
    output = _augment(jax.random.key(0), rgb, Augmentation(color_jitter=1.0))
    assert len(np.unique(np.reshape(output, (4, -1)), axis=0)) == 4


def test_augment_follows_its_key():
    rgb = _rgb(4)
    first, again, other = (_augment(jax.random.key(seed), rgb, ALL) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    np.testing.assert_allclose(augment(jax.random.key(1), rgb, ALL), first, atol=2e-6)


def test_unit_range_ends_at_black_and_white():
    output = to_unit_range(np.arange(256, dtype=np.uint8))
    assert output.dtype == np.float32
    np.testing.assert_allclose(output, np.linspace(0, 1, 256), rtol=1e-6)


@pytest.mark.parametrize('value_range', [(-1.0, 1.0), (0.0, 1.0), (0.0, 255.0), (-2.0, 3.0)])
def test_normalize_takes_black_and_white_to_the_ends(value_range):
    spec = Preprocessing(value_range=value_range)
    clip = np.float32([0, 0.25, 1]).reshape(1, 3, 1, 1, 1) * np.ones(3, np.float32)
    low, high = value_range
    output = np.asarray(normalize(clip, spec))
    assert output.dtype == np.float32
    expected = [low, low + 0.25 * (high - low), high]
    np.testing.assert_allclose(output[0, :, 0, 0], np.repeat(expected, 3).reshape(3, 3), rtol=1e-6)


def test_normalize_swaps_channels_for_bgr():
    clip = np.float32([0.1, 0.2, 0.3]).reshape(1, 1, 1, 1, 3)
    output = normalize(clip, Preprocessing(value_range=(0.0, 10.0), color_order='bgr'))
    np.testing.assert_allclose(output.reshape(-1), [3, 2, 1], rtol=1e-6)
