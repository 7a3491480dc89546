import jax
import numpy as np
import pytest
from PIL import Image, ImageOps

from vivit_jax.augment.tone import auto_contrast, equalize, histogram


def _rgb(shape=(4, 24, 20, 3)):
    """Noise whose channels differ in range, none of them full."""
    return np.random.default_rng(0).integers([10, 40, 5], [200, 250, 130], shape).astype(np.uint8)


@pytest.mark.parametrize('operation', [auto_contrast, equalize])
def test_channel_of_one_level_stays(operation):
    clip = _rgb()
    clip[..., 1] = 77
    output = np.asarray(operation(clip))
    np.testing.assert_array_equal(output[..., 1], 77)
    assert np.abs(np.int32(output[..., [0, 2]]) - clip[..., [0, 2]]).max() > 10


@pytest.mark.parametrize('num_pixels', [4, 254, 256, 257, 600])
def test_equalize_of_few_pixels_equals_pil(num_pixels):
    rgb = _rgb((1, num_pixels, 1, 3))
    expected = np.asarray(ImageOps.equalize(Image.fromarray(rgb[0])))
    np.testing.assert_array_equal(equalize(rgb)[0], expected)


@pytest.mark.parametrize('shape', [(1,), (31,), (5, 7, 9)])
def test_histogram_equals_numpy(shape):
    levels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    levels.flat[0] = 255
    counted = jax.jit(histogram)(levels)
    np.testing.assert_array_equal(counted, np.bincount(levels.ravel(), minlength=256))


def test_statistics_are_those_of_the_whole_clip():
    clip = np.uint8([50, 150]).reshape(2, 1, 1, 1) * np.ones((2, 4, 4, 3), np.uint8)
    output = np.asarray(auto_contrast(clip))
    np.testing.assert_array_equal(output[0], 0)
    np.testing.assert_array_equal(output[1], 255)
