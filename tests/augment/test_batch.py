import jax
import numpy as np
import pytest

from vivit_jax.augment.batch import augment_batch, augment_clips
from vivit_jax.augment.policy import Augmentation
from vivit_jax.video.preprocessing import Preprocessing, normalize, to_unit_range

ALL = Augmentation(
    flip=0.5, color_jitter=0.5, color_drop=0.5, randaugment_layers=2, erase=0.5, mixup_alpha=0.3
)


def _rgb(num_clips=2, shape=(3, 4, 5, 3)):
    return np.random.default_rng(0).integers(0, 256, (num_clips, *shape), np.uint8)


def _augment(key, rgb, policy, is_mirrored=None, **others):
    """RGB of the augmented clips."""
    if is_mirrored is None:
        is_mirrored = np.zeros(len(rgb), bool)
    clips = jax.jit(augment_clips, static_argnums=3)(
        key, {'rgb': rgb, **others}, is_mirrored, policy
    )
    return np.asarray(clips['rgb'])


def test_batch_becomes_the_inputs_of_a_step():
    rgb, spec = _rgb(4), Preprocessing(value_range=(-2.0, 2.0), color_order='bgr')
    batch = {'rgb': rgb, 'label': {'verb': np.array([0, 1, 2, 1]), 'noun': np.array([1, 0, 0, 1])}}
    mirrored = {'verb': np.array([1, 0, 2]), 'noun': np.array([0, 1])}
    inputs = augment_batch(
        tuple(jax.random.split(jax.random.key(0), 3)),
        batch,
        Augmentation(flip=1.0),
        spec=spec,
        num_classes={'verb': 3, 'noun': 2},
        label_smoothing=0.3,
        mirrored=mirrored,
    )
    expected = rgb[:, :, :, ::-1, ::-1] / 255 * 4 - 2
    np.testing.assert_allclose(inputs.clips['rgb'], expected, atol=1e-6)
    assert inputs.label['verb'].tolist() == [1, 0, 2, 0]
    assert inputs.label['noun'].tolist() == [1, 0, 0, 1]
    np.testing.assert_allclose(inputs.targets['verb'], 0.7 * np.eye(3)[[1, 0, 2, 0]] + 0.1)
    np.testing.assert_allclose(inputs.targets['noun'], 0.7 * np.eye(2)[[1, 0, 0, 1]] + 0.15)


def test_label_of_a_mixed_clip_is_its_own():
    batch = {'rgb': _rgb(8), 'label': np.arange(8)}
    inputs = augment_batch(
        tuple(jax.random.split(jax.random.key(0), 3)),
        batch,
        Augmentation(mixup_alpha=1.0),
        spec=Preprocessing(),
        num_classes=8,
    )
    assert inputs.label.tolist() == list(range(8))
    own = np.diag(inputs.targets)
    assert (own < 0.99).any()
    before = np.roll(np.eye(8), 1, axis=0)  # the partner's class
    np.testing.assert_allclose(
        inputs.targets, own[:, None] * np.eye(8) + (1 - own[:, None]) * before, atol=1e-6
    )


def test_augment_without_probabilities_only_scales():
    output = _augment(jax.random.key(0), _rgb(), Augmentation())
    assert output.dtype == np.float32
    np.testing.assert_allclose(output, _rgb() / 255, atol=1e-7)


def test_augment_mirrors_the_width_of_drawn_clips():
    is_mirrored = np.array([True, False, True])
    output = _augment(jax.random.key(0), _rgb(3), Augmentation(flip=0.5), is_mirrored)
    expected = [x[:, :, ::-1] if m else x for x, m in zip(_rgb(3), is_mirrored, strict=True)]
    np.testing.assert_allclose(output, np.stack(expected) / 255, atol=1e-7)


def test_augment_without_layers_ignores_magnitude_and_mixing():
    policy = Augmentation(randaugment_magnitude=20.0, mixup_alpha=0.3, cutmix_alpha=1.0)
    output = _augment(jax.random.key(0), _rgb(), policy)
    np.testing.assert_allclose(output, _rgb() / 255, atol=1e-7)


@pytest.mark.parametrize(('geometry', 'least'), [(False, 8), (True, 12)])
def test_augment_randaugments_each_clip_by_itself(geometry, least):
    rgb = np.repeat(_rgb(1, (1, 6, 6, 3)), 100, axis=0)
    policy = Augmentation(
        randaugment_layers=1, randaugment_magnitude=15.0, randaugment_geometry=geometry
    )
    output = _augment(jax.random.key(0), rgb, policy)
    assert len(np.unique(output.reshape(100, -1), axis=0)) > least  # of 12 or 17 operations


def test_augment_changes_color_after_randaugment():
    policy = Augmentation(color_drop=1.0, randaugment_layers=2, randaugment_magnitude=15.0)
    output = _augment(jax.random.key(0), _rgb(30, (1, 6, 6, 3)), policy)
    np.testing.assert_allclose(np.ptp(output, axis=-1), 0, atol=1e-6)


def test_augment_erases_after_changes_of_color():
    output = _augment(
        jax.random.key(0), _rgb(30, (1, 8, 8, 3)), Augmentation(color_drop=1.0, erase=1.0)
    )
    is_colored = (np.ptp(output, axis=-1) > 1e-6).any((1, 2, 3))
    assert is_colored.all()


@pytest.mark.parametrize('field', ['color_jitter', 'color_drop', 'erase'])
def test_augment_draws_for_each_clip(field):
    rgb = _rgb(100, (2, 3, 4, 3))
    output = _augment(jax.random.key(0), rgb, Augmentation(**{field: 0.4}))
    by_frame = np.abs(output - rgb / 255).max((2, 3, 4)) > 1e-6
    np.testing.assert_array_equal(by_frame[:, 0], by_frame[:, 1])
    assert 0.2 < by_frame.mean() < 0.6  # four standard deviations of 0.05


def test_augment_draws_its_parts_independently():
    rgb = np.broadcast_to(_rgb(1, (1, 16, 16, 3)), (200, 1, 16, 16, 3))
    output = _augment(jax.random.key(0), rgb, Augmentation(erase=0.5, color_drop=0.5))
    # A box may cover what was in color, but not three quarters of the frame.
    gray = (np.ptp(output, axis=-1) < 1e-6).mean((1, 2, 3)) > 0.5
    luma = np.round(rgb @ np.array([0.299, 0.587, 0.114]))[..., None]
    expected = np.where(gray[:, None, None, None, None], luma, rgb) / 255
    erased = np.abs(output - expected).max((1, 2, 3, 4)) > 1e-2
    for a in (gray, ~gray):
        for b in (erased, ~erased):
            assert 25 < (a & b).sum() < 75  # of 200, four standard deviations


def test_augment_gives_equal_clips_different_draws():
    rgb = np.broadcast_to(_rgb(1), (4, *_rgb(1).shape[1:]))
    output = _augment(jax.random.key(0), rgb, Augmentation(color_jitter=1.0))
    assert len(np.unique(np.reshape(output, (4, -1)), axis=0)) == 4


def test_augment_follows_its_key():
    rgb = _rgb(4, (2, 8, 8, 3))
    first, again, other = (_augment(jax.random.key(seed), rgb, ALL) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_depth_changes_place_with_rgb():
    num_clips = 40
    depth = np.random.default_rng(0).integers(1, 256, (num_clips, 2, 16, 16, 1)).astype(np.uint16)
    rgb = np.repeat(depth, 3, axis=-1).astype(np.uint8)
    policy = Augmentation(
        flip=0.5, randaugment_layers=1, randaugment_magnitude=8.0, color_jitter=1.0, erase=0.5
    )
    is_mirrored = np.arange(num_clips) % 2 == 0
    run = jax.jit(augment_clips, static_argnums=3)
    both = run(jax.random.key(0), {'rgb': rgb, 'depth': depth}, is_mirrored, policy)
    alone = run(jax.random.key(0), {'depth': depth}, is_mirrored, policy)
    assert both.keys() == {'rgb', 'depth'} and alone.keys() == {'depth'}
    assert both['depth'].dtype == np.float32
    np.testing.assert_array_equal(both['depth'], alone['depth'])
    np.testing.assert_array_equal(
        _augment(jax.random.key(0), rgb, policy, is_mirrored), both['rgb']
    )
    # Depth is where it was, mirrored, or moved, with 0 where nothing is known.
    output = np.asarray(both['depth'])
    mirrored = is_mirrored[:, None, None, None, None]
    expected = np.where(mirrored, depth[:, :, :, ::-1], depth)
    is_moved = (output != expected).any((1, 2, 3, 4))
    assert 10 < is_moved.sum() < 36
    assert all(0 in frames for frames in output[is_moved])
    assert all(
        set(frames.flat) <= {0, *given.flat} for frames, given in zip(output, depth, strict=True)
    )


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
