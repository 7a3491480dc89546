import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from vivit_jax.augment.color import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    adjust_sharpness,
    luma,
    random_color_drop,
    random_color_jitter,
    scale_brightness,
)

LUMA = np.array([0.299, 0.587, 0.114])
TO_YIQ = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def _clip(low=0, high=256, shape=(3, 4, 5, 3)):
    return np.random.default_rng(0).integers(low, high, shape).astype(np.uint8)


def _yiq(clip):
    """NTSC's luma and its chroma I + iQ."""
    luma, i, q = np.moveaxis(clip @ TO_YIQ.T, -1, 0)
    return luma, i + 1j * q


def _numpy_hue(clip, turn):
    """Turns the chroma; the way back solves three equations per pixel."""
    luma, chroma = _yiq(clip)
    chroma = chroma * np.exp(2j * np.pi * turn)
    yiq = np.stack([luma, chroma.real, chroma.imag])
    return np.linalg.solve(TO_YIQ, yiq.reshape(3, -1)).T.reshape(clip.shape)


def _numpy_gray(clip):
    return np.repeat(clip @ LUMA, 3).reshape(clip.shape)


def _numpy_smooth(clip):
    """Each pixel five times with its eight neighbours once; the border stays."""
    kernel = np.float64([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    smooth = clip.copy()
    smooth[:, 1:-1, 1:-1] = scipy.ndimage.convolve(clip, kernel[None, :, :, None])[:, 1:-1, 1:-1]
    return smooth


OPERATIONS = {
    'brightness': (adjust_brightness, lambda clip, x: clip + x),
    'scale_brightness': (scale_brightness, lambda clip, x: clip * x),
    'contrast': (
        adjust_contrast,
        lambda clip, x: x * clip + (1 - x) * (clip @ LUMA).mean(),
    ),
    'saturation': (adjust_saturation, lambda clip, x: x * clip + (1 - x) * _numpy_gray(clip)),
    'sharpness': (adjust_sharpness, lambda clip, x: x * clip + (1 - x) * _numpy_smooth(clip)),
    'hue': (adjust_hue, _numpy_hue),
}


@pytest.mark.parametrize('name', OPERATIONS)
@pytest.mark.parametrize('strength', [-0.2, 0.0, 0.3, 1.7])
def test_adjustment_equals_numpy_formula(name, strength):
    operation, reference = OPERATIONS[name]
    clip = _clip()
    output = operation(clip.astype(np.float32), strength)
    compiled = jax.jit(operation)(clip, strength)
    expected = np.clip(reference(np.float64(clip), strength), 0, 255)
    assert output.dtype == compiled.dtype == np.float32
    np.testing.assert_allclose(output, expected, atol=5e-4)
    np.testing.assert_allclose(compiled, expected, atol=5e-4)


def test_luma_is_that_of_rec_601():
    clip = 255 * np.eye(3, dtype=np.uint8)[None, None]
    np.testing.assert_allclose(luma(clip)[0, 0, :, 0], 255 * LUMA, rtol=1e-6)
    np.testing.assert_allclose(luma(np.full((1, 1, 1, 3), 255, np.uint8)), 255, rtol=1e-6)


@pytest.mark.parametrize('name', ['contrast', 'saturation', 'sharpness'])
def test_factor_of_one_is_exactly_identity(name):
    np.testing.assert_array_equal(OPERATIONS[name][0](_clip(), 1), _clip())


@pytest.mark.parametrize('turn', [0, 1, -1, 2])
def test_hue_by_whole_turns_is_identity(turn):
    np.testing.assert_allclose(adjust_hue(_clip(), turn), _clip(), atol=1e-3)


@pytest.mark.parametrize('turn', [0.1, -0.2, 0.5])
def test_hue_keeps_luma_and_moves_color(turn):
    clip = _clip(100, 156)  # far enough from black and white not to be cut off there
    output = adjust_hue(clip, turn)
    np.testing.assert_allclose(luma(output), luma(clip), atol=1e-3)
    assert np.abs(output - clip).mean() > 2


def test_hue_leaves_gray():
    gray = np.repeat(_clip(shape=(2, 3, 4, 1)), 3, axis=-1)
    np.testing.assert_allclose(adjust_hue(gray, 0.37), gray, atol=1e-3)


def test_saturation_zero_leaves_gray():
    output = adjust_saturation(_clip(), 0)
    np.testing.assert_allclose(output, np.broadcast_to(luma(_clip()), output.shape), atol=1e-4)


# Clips on which one can measure what each part of a jitter did, of many levels so that the rounding
# of the result averages out, and far enough from black and white not to be cut off there.
GRAYS = np.repeat(_clip(95, 161, (1, 40, 50, 1)), 3, axis=-1)
COLORS = _clip(116, 140, (1, 40, 50, 3))


def _slope(clips):
    """The factor by which the distance from the mean was scaled."""
    distance = GRAYS[..., 0] - GRAYS.mean()
    return (clips[..., 0] * distance).sum((1, 2, 3)) / (distance**2).sum()


def _chroma_factor(clips):
    changed, original = _yiq(np.float64(clips))[1], _yiq(np.float64(COLORS))[1]
    return (changed * original.conj()).sum((1, 2, 3)) / (np.abs(original) ** 2).sum()


# The clip, and how far each of its versions [k t h w c] was shifted, scaled or turned.
MEASURES = {
    'brightness': (GRAYS, lambda clips: clips.mean((1, 2, 3, 4)) - GRAYS.mean()),
    'contrast': (GRAYS, lambda clips: _slope(clips) - 1),
    'saturation': (COLORS, lambda clips: np.abs(_chroma_factor(clips)) - 1),
    'hue': (COLORS, lambda clips: np.angle(_chroma_factor(clips)) / (2 * np.pi)),
}


def _jitter(clip, num_keys, **ranges):
    """The clip, changed with each of some keys."""
    change = jax.vmap(lambda key: random_color_jitter(key, clip, probability=1.0, **ranges))
    output = np.asarray(jax.jit(change)(jax.random.split(jax.random.key(0), num_keys)))
    assert output.dtype == np.uint8
    return output


@pytest.mark.parametrize('name', MEASURES)
def test_jitter_draws_uniformly_from_its_range(name):
    clip, measure = MEASURES[name]
    most = 20 if name == 'brightness' else 0.2
    drawn = measure(_jitter(clip, 300, **{**dict.fromkeys(MEASURES, 0.0), name: most})) / most
    # Uniform in ±1: standard deviation 0.577, and three hundred draws come near both ends.
    assert -1.01 <= drawn.min() < -0.95
    assert 0.95 < drawn.max() <= 1.01
    assert abs(drawn.std() - 1 / np.sqrt(3)) < 0.05


def test_jitter_draws_its_parts_independently():
    ranges = {'brightness': 20.0, 'contrast': 0.3, 'saturation': 0.0, 'hue': 0.0}
    clips = _jitter(GRAYS, 300, **ranges)
    drawn = [MEASURES[name][1](clips) for name in ('brightness', 'contrast')]
    assert abs(np.corrcoef(drawn)[0, 1]) < 0.25


def test_jitter_equals_its_parts_in_order():
    # Draws depend on the key alone: measured where nothing is cut off, expected where much is.
    grays, color = _jitter(GRAYS, 20), _jitter(COLORS, 20)
    shift, scale = MEASURES['brightness'][1](grays), 1 + MEASURES['contrast'][1](grays)
    saturation = (1 + MEASURES['saturation'][1](color)) / scale
    turn = MEASURES['hue'][1](color)
    assert (np.abs(shift) <= 32.1).all() and (np.abs(scale - 1) <= 0.402).all()
    assert (np.abs(saturation - 1) <= 0.41).all() and (np.abs(turn) <= 0.201).all()

    expected = np.repeat(np.float64(_clip())[None], 20, axis=0)
    for strengths, name in (
        (shift, 'brightness'),
        (saturation, 'saturation'),
        (scale, 'contrast'),
        (turn, 'hue'),
    ):
        changed = [OPERATIONS[name][1](*pair) for pair in zip(expected, strengths, strict=True)]
        expected = np.clip(changed, 0, 255)
    # Measured strengths are off by up to 2 %, where rounding shifts many levels alike.
    np.testing.assert_allclose(_jitter(_clip(), 20), expected, rtol=0, atol=4)


def test_jitter_draws_once_for_all_frames():
    still = np.broadcast_to(_clip(80, 180, (1, 4, 5, 3)), (6, 4, 5, 3))
    output = _jitter(still, 2)
    assert np.abs(np.float32(output) - still).max((1, 2, 3, 4)).min() > 2
    assert (output[0] != output[1]).mean() > 0.5
    np.testing.assert_array_equal(output, np.broadcast_to(output[:, :1], output.shape))


@pytest.mark.parametrize('operation', [random_color_jitter, random_color_drop])
@pytest.mark.parametrize('probability', [0.0, 0.3, 1.0])
def test_random_color_changes_a_share_of_clips(operation, probability):
    clip = jnp.asarray(_clip(80, 180, (2, 3, 4, 3)))
    keys = jax.random.split(jax.random.key(0), 400)
    change = jax.jit(jax.vmap(lambda key: operation(key, clip, probability=probability)))
    changed = (np.asarray(change(keys)) != clip).any((1, 2, 3, 4))
    # Four standard deviations.
    assert abs(changed.mean() - probability) <= 4 * np.sqrt(probability * (1 - probability) / 400)


def test_color_drop_leaves_luma_in_all_channels():
    output = random_color_drop(jax.random.key(0), _clip(), 1.0)
    assert output.dtype == np.uint8
    np.testing.assert_allclose(output, _numpy_gray(_clip()), rtol=0, atol=0.501)


def test_jitter_is_the_same_compiled():
    keys = jax.random.split(jax.random.key(0), 2)
    plain = [random_color_jitter(key, _clip(), probability=1.0) for key in keys]
    difference = np.int32(plain) - _jitter(_clip(), 2)
    assert np.abs(difference).max() <= 1 and (difference != 0).mean() < 0.02
