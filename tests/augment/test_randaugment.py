import collections
import functools

import jax
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from vivit_jax.augment.randaugment import (
    auto_contrast,
    equalize,
    operations,
    random_augment,
    random_cutout,
)

KEY = jax.random.key(0)
NAMES = list(operations(KEY, 0))


def _rgb(seed=0, shape=(4, 24, 20, 3)):
    """Noise whose channels differ in range, none of them full."""
    rng = np.random.default_rng(seed)
    return rng.integers([10, 40, 5], [200, 250, 130], shape).astype(np.uint8)


def _unit(rgb):
    return np.float32(rgb) / 255


def _augment(keys, clip, *, num_layers=1, magnitude=7.0):
    """The clip, changed with each of some keys, [k t h w 3]."""
    change = functools.partial(random_augment, num_layers=num_layers, magnitude=magnitude)
    return np.asarray(jax.jit(jax.vmap(change, in_axes=(0, None)))(keys, clip))


def _apply(name, clips, magnitude):
    operation = operations(KEY, magnitude)[name]
    return np.asarray(jax.jit(jax.vmap(operation))(clips))


def _as_image(change):
    """For a clip, what `change` does to its frames, one below the other as one image."""

    def apply(rgb, magnitude):
        tall = Image.fromarray(rgb.reshape(-1, *rgb.shape[2:]))
        return np.asarray(change(tall, magnitude)).reshape(rgb.shape)

    return apply


def _enhance(kind):
    return _as_image(lambda image, m: kind(image).enhance(0.1 + m / 10 * 1.8))


def _sharpness(rgb, magnitude):
    apply = _enhance(ImageEnhance.Sharpness)
    return np.stack([apply(frame[None], magnitude)[0] for frame in rgb])


def _solarize_add(rgb, magnitude):
    added = np.minimum(np.int32(rgb) + int(magnitude / 10 * 110), 255)
    return np.where(rgb < 128, added, rgb)


# Independent implementations, and how many levels apart: PIL cuts off to whole levels after
# each blend, and before it rounds the gray, mean or smoothed value, whose error a factor of up to
# 3.7 makes 1.35.
REFERENCES = {
    'identity': (lambda rgb, m: rgb, 0),
    'auto_contrast': (_as_image(lambda image, m: ImageOps.autocontrast(image)), 1),
    'equalize': (_as_image(lambda image, m: ImageOps.equalize(image)), 0),
    'invert': (_as_image(lambda image, m: ImageOps.invert(image)), 0),
    'posterize': (lambda rgb, m: rgb >> (8 - int(m / 10 * 4)) << (8 - int(m / 10 * 4)), 0),
    'solarize': (_as_image(lambda image, m: ImageOps.solarize(image, int(m / 10 * 256))), 0),
    'solarize_add': (_solarize_add, 0),
    'color': (_enhance(ImageEnhance.Color), 2.36),
    'contrast': (_enhance(ImageEnhance.Contrast), 2.36),
    'brightness': (_enhance(ImageEnhance.Brightness), 1),
    'sharpness': (_sharpness, 2.36),
}


@pytest.mark.parametrize('name', REFERENCES)
@pytest.mark.parametrize('magnitude', [0, 3, 7, 15, 20])
def test_operation_equals_that_of_pil(name, magnitude):
    clips = np.stack([_rgb(0), _rgb(1) // 2])
    reference, levels_apart = REFERENCES[name]
    expected = np.stack([reference(rgb, magnitude) for rgb in clips])
    compiled = _apply(name, _unit(clips), magnitude)
    plain = operations(KEY, magnitude)[name](_unit(clips[0]))
    assert compiled.dtype == plain.dtype == np.float32
    assert compiled.shape == clips.shape
    np.testing.assert_allclose(255 * compiled, expected, rtol=0, atol=levels_apart + 1e-3)
    np.testing.assert_allclose(plain, compiled[0], atol=2e-6)


def test_references_are_all_operations_but_cutout():
    assert {*REFERENCES, 'cutout'} == set(NAMES)


@pytest.mark.parametrize(
    ('name', 'magnitude'),
    [
        ('identity', 15),
        ('cutout', 0),
        ('solarize_add', 0),
        ('color', 5),
        ('contrast', 5),
        ('brightness', 5),
        ('sharpness', 5),
        ('solarize', 10),
        ('solarize', 20),
        ('posterize', 20),
        ('posterize', 30),
    ],
)
def test_operation_without_strength_is_identity(name, magnitude):
    clip = _unit(_rgb())[None]
    np.testing.assert_allclose(_apply(name, clip, magnitude), clip, rtol=0, atol=1e-7)


@pytest.mark.parametrize('operation', [auto_contrast, equalize])
def test_channel_of_one_level_stays(operation):
    clip = _unit(_rgb())
    clip[..., 1] = 77 / 255
    output = np.asarray(operation(clip))
    np.testing.assert_array_equal(output[..., 1], clip[..., 1])
    assert np.abs(output[..., [0, 2]] - clip[..., [0, 2]]).max() > 0.05


@pytest.mark.parametrize('num_pixels', [4, 254, 256, 257, 600])
def test_equalize_of_few_pixels_equals_pil(num_pixels):
    rgb = _rgb(shape=(1, num_pixels, 1, 3))
    expected = np.asarray(ImageOps.equalize(Image.fromarray(rgb[0])))
    np.testing.assert_allclose(255 * equalize(_unit(rgb))[0], expected, atol=1e-3)


def test_statistics_are_those_of_the_whole_clip():
    clip = np.float32([0.2, 0.6]).reshape(2, 1, 1, 1) * np.ones((2, 4, 4, 3), np.float32)
    output = np.asarray(auto_contrast(clip))
    np.testing.assert_allclose(output[0], 0, atol=1e-6)
    np.testing.assert_allclose(output[1], 1, atol=1e-6)


@pytest.mark.parametrize(
    ('height', 'width', 'magnitude', 'side'),
    [(224, 224, 15, 120), (224, 230, 20, 160), (64, 112, 10, 22), (48, 32, 7, 8)],
)
def test_cutout_is_a_black_square_that_scales_with_the_frame(height, width, magnitude, side):
    white = np.ones((2, height, width, 3), np.float32)
    cut = jax.jit(jax.vmap(lambda key: operations(key, magnitude)['cutout'](white)))
    output = np.asarray(cut(jax.random.split(KEY, 64)))
    assert set(np.unique(output)) == {0.0, 1.0}
    hole = output == 0
    np.testing.assert_array_equal(hole, np.broadcast_to(hole[:, :1, :, :, :1], hole.shape))
    hole = hole[:, 0, :, :, 0]
    rows, columns = hole.any(2), hole.any(1)
    np.testing.assert_array_equal(hole, rows[:, :, None] & columns[:, None])
    for line in (rows, columns):
        assert (np.abs(np.diff(line)).sum(1) <= 2).all()  # in one piece
        assert line.sum(1).max() == side
        assert (line.sum(1) >= side / 2).all()  # the centre is in the frame


def test_cutout_centers_are_uniform():
    white = np.ones((1, 8, 10, 3), np.float32)
    keys = jax.random.split(KEY, 4000)
    output = jax.jit(jax.vmap(lambda key: random_cutout(key, white, 60.0)))(keys)
    hole = np.asarray(output)[:, 0, :, :, 0] == 0

    def share(size):  # of the centres c with c - 2 <= pixel < c + 2
        pixel, center = np.mgrid[:size, :size]
        return ((center - 2 <= pixel) & (pixel < center + 2)).mean(1)

    expected = np.outer(share(8), share(10))
    # Five standard deviations.
    bound = 5 * np.sqrt(expected * (1 - expected) / len(keys))
    assert (np.abs(hole.mean(0) - expected) < bound).all()


def _closest(outputs, candidates):
    """For each output the index of the candidate that it is, or -1."""
    distance = np.stack([np.abs(output - candidates).max((1, 2, 3, 4)) for output in outputs])
    return np.where(distance.min(1) < 1e-5, distance.argmin(1), -1)


def _all_but_cutout(clips):
    names = [name for name in NAMES if name != 'cutout']
    return np.concatenate([_apply(name, clips, 7.0) for name in names])


def test_operations_are_drawn_uniformly():
    clip = _unit(_rgb(shape=(1, 20, 16, 3)))
    outputs = _augment(jax.random.split(KEY, 1200), clip)
    counts = collections.Counter(_closest(outputs, _all_but_cutout(clip[None])))
    assert set(counts) == set(range(-1, 11))  # -1: cutout
    # 100 expected; four standard deviations.
    assert all(62 < count < 138 for count in counts.values())


def test_two_layers_are_two_independent_operations():
    clip = _unit(_rgb(shape=(1, 20, 16, 3)))
    pairs = _all_but_cutout(_all_but_cutout(clip[None]))
    outputs = _augment(jax.random.split(KEY, 600), clip, num_layers=2)
    found = _closest(outputs, pairs)
    # No cutout in 121 of 144; four standard deviations.
    assert abs((found >= 0).mean() - 121 / 144) < 4 * np.sqrt(121 / 144 * 23 / 144 / 600)
    assert len(set(found)) > 90  # of 121, a few of which are equal: the identity before or after
    counts = collections.Counter(found[found >= 0] % 11)
    assert max(counts.values()) < 0.25 * len(found)


def test_no_layers_leave_the_clip():
    clip = _unit(_rgb())
    np.testing.assert_array_equal(_augment(KEY[None], clip, num_layers=0)[0], clip)


@pytest.mark.parametrize('magnitude', [0.0, 10.0, 20.0, 30.0])
def test_all_frames_get_the_same_and_stay_in_range(magnitude):
    still = np.repeat(_unit(_rgb(shape=(1, 16, 12, 3))), 3, axis=0)
    keys = jax.random.split(KEY, 100)
    output = _augment(keys, still, num_layers=2, magnitude=magnitude)
    assert output.dtype == np.float32
    assert output.min() >= 0 and output.max() <= 1
    np.testing.assert_allclose(output, np.broadcast_to(output[:, :1], output.shape), atol=1e-6)
    assert len(np.unique(output.reshape(100, -1), axis=0)) > 20


def test_compiled_draws_are_those_of_plain_calls():
    clip = _unit(_rgb())
    keys = jax.random.split(KEY, 2)
    plain = [random_augment(key, clip, num_layers=1, magnitude=7.0) for key in keys]
    np.testing.assert_allclose(plain, _augment(keys, clip), atol=1e-5)
