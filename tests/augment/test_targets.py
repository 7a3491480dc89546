import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_jax.augment.batch import augment_batch
from vivit_jax.augment.policy import Augmentation
from vivit_jax.augment.targets import make_targets, swap_labels
from vivit_jax.video.preprocessing import Preprocessing

ROWS = np.float32([[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 1, 0], [1, 1, 0, 1]])
SWAP = np.array([1, 0, 2, 3])  # left and right


def test_any_number_of_labels_are_smoothed_as_yes_and_no():
    np.testing.assert_array_equal(make_targets(ROWS, 4, 0.0), ROWS)
    expected = np.where(ROWS == 1, 0.9, 0.1)
    np.testing.assert_allclose(make_targets(jnp.asarray(ROWS), 4, 0.2), expected, rtol=1e-6)


def test_mirroring_swaps_every_label_of_a_clip():
    is_mirrored = np.array([True, True, True, False])
    swapped = swap_labels(jnp.asarray(ROWS), is_mirrored, SWAP)
    expected = [[0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [1, 1, 0, 1]]
    np.testing.assert_array_equal(swapped, expected)


def test_swapped_rows_are_the_swapped_classes_one_by_one():
    rng = np.random.default_rng(0)
    label, swap = rng.integers(0, 6, 20), rng.permutation(6)
    is_mirrored = rng.random(20) < 0.5
    one = swap_labels(jnp.asarray(label), is_mirrored, swap)
    rows = swap_labels(jax.nn.one_hot(label, 6), is_mirrored, swap)
    np.testing.assert_array_equal(rows, np.eye(6)[one])


@pytest.mark.parametrize('kind', ['mixup_alpha', 'cutmix_alpha'])
def test_mixing_mixes_the_target_of_each_class(kind):
    """Clips of one grey level each say which weights were drawn."""
    levels = np.uint8([0, 60, 120, 240])
    rgb = np.broadcast_to(levels[:, None, None, None, None], (4, 2, 8, 8, 3))
    spec = Preprocessing(num_frames=2, short_side=8, crop_size=8, value_range=(0.0, 255.0))
    inputs = augment_batch(
        jax.random.split(jax.random.key(1), 3),
        {'rgb': jnp.asarray(rgb), 'label': jnp.asarray(ROWS)},
        Augmentation(**{kind: 1.0}),
        spec=spec,
        num_classes=4,
        label_smoothing=0.2,
    )
    means = np.asarray(inputs.clips['rgb']).mean((1, 2, 3, 4))
    before = np.roll(levels, 1).astype(float)
    own = (means - before) / (levels - before)
    targets = np.where(ROWS == 1, 0.9, 0.1)
    expected = own[:, None] * targets + (1 - own[:, None]) * np.roll(targets, 1, 0)
    assert 0.01 < own.min() < 0.99
    np.testing.assert_allclose(inputs.targets, expected, atol=1e-4)
    np.testing.assert_array_equal(inputs.label, ROWS)
