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
)

LUMA = np.array([0.299, 0.587, 0.114])
TO_YIQ = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


@pytest.fixture(autouse=True)
def exact_matmuls():
    """Accelerators multiply float32 coarsely by default."""
    with jax.default_matmul_precision('highest'):
        yield


def _clip(low=0.0, high=1.0, shape=(3, 4, 5, 3)):
    return np.random.default_rng(0).uniform(low, high, shape).astype(np.float32)


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
    output = operation(clip, strength)
    compiled = jax.jit(operation)(clip, strength)
    expected = np.clip(reference(np.float64(clip), strength), 0, 1)
    np.testing.assert_allclose(output, expected, atol=2e-6)
    np.testing.assert_allclose(compiled, expected, atol=2e-6)


def test_luma_is_that_of_rec_601():
    clip = np.eye(3, dtype=np.float32)[None, None]
    np.testing.assert_allclose(luma(clip)[0, 0, :, 0], LUMA, rtol=1e-6)
    np.testing.assert_allclose(luma(np.ones((1, 1, 1, 3), np.float32)), 1, rtol=1e-6)


@pytest.mark.parametrize('name', ['contrast', 'saturation', 'sharpness'])
def test_factor_of_one_is_exactly_identity(name):
    np.testing.assert_array_equal(OPERATIONS[name][0](_clip(), 1), _clip())


@pytest.mark.parametrize('turn', [0, 1, -1, 2])
def test_hue_by_whole_turns_is_identity(turn):
    np.testing.assert_allclose(adjust_hue(_clip(), turn), _clip(), atol=1e-5)


@pytest.mark.parametrize('turn', [0.1, -0.2, 0.5])
def test_hue_keeps_luma_and_moves_color(turn):
    clip = _clip(0.4, 0.6)  # far enough from black and white not to be cut off there
    output = adjust_hue(clip, turn)
    np.testing.assert_allclose(luma(output), luma(clip), atol=1e-5)
    assert np.abs(output - clip).mean() > 0.01


def test_hue_leaves_gray():
    gray = np.repeat(_clip(shape=(2, 3, 4, 1)), 3, axis=-1)
    np.testing.assert_allclose(adjust_hue(gray, 0.37), gray, atol=1e-5)


def test_saturation_zero_leaves_gray():
    output = adjust_saturation(_clip(), 0)
    np.testing.assert_allclose(output, np.broadcast_to(luma(_clip()), output.shape), atol=1e-6)


# Clips on which one can measure what each part of a jitter did.
TWO_GRAYS = np.float32([0.4, 0.6]).reshape(1, 2, 1, 1) * np.ones(3, np.float32)
COLOR = np.float32([0.5, 0.45, 0.55]).reshape(1, 1, 1, 3)


def _chroma_factor(clips):
    return (_yiq(np.float64(clips))[1] / _yiq(np.float64(COLOR))[1]).ravel()


# The clip, and how far each of its versions [k t h w c] was shifted, scaled or turned.
MEASURES = {
    'brightness': (TWO_GRAYS, lambda clips: clips.mean((1, 2, 3, 4)) - 0.5),
    'contrast': (TWO_GRAYS, lambda clips: np.ptp(clips, (1, 2, 3, 4)) / 0.2 - 1),
    'saturation': (COLOR, lambda clips: np.abs(_chroma_factor(clips)) - 1),
    'hue': (COLOR, lambda clips: np.angle(_chroma_factor(clips)) / (2 * np.pi)),
}


def _jitter(clip, num_keys, **ranges):
    """The clip, changed with each of some keys."""
    change = jax.vmap(lambda key: random_color_jitter(key, clip, probability=1.0, **ranges))
    return np.asarray(jax.jit(change)(jax.random.split(jax.random.key(0), num_keys)))


@pytest.mark.parametrize('name', MEASURES)
def test_jitter_draws_uniformly_from_its_range(name):
    clip, measure = MEASURES[name]
    drawn = measure(_jitter(clip, 300, **{**dict.fromkeys(MEASURES, 0.0), name: 0.2}))
    # Uniform in ±0.2: standard deviation 0.115, and three hundred draws come near both ends.
    assert -0.2 - 1e-4 <= drawn.min() < -0.19
    assert 0.19 < drawn.max() <= 0.2 + 1e-4
    assert abs(drawn.std() - 0.4 / np.sqrt(12)) < 0.01


def test_jitter_draws_its_parts_independently():
    ranges = {'brightness': 0.1, 'contrast': 0.4, 'saturation': 0.0, 'hue': 0.0}
    clips = _jitter(TWO_GRAYS, 300, **ranges)
    drawn = [MEASURES[name][1](clips) for name in ('brightness', 'contrast')]
    assert abs(np.corrcoef(drawn)[0, 1]) < 0.25


def test_jitter_equals_its_parts_in_order():
    # Draws depend on the key alone: measured where nothing is cut off, expected where much is.
    grays, color = _jitter(TWO_GRAYS, 20), _jitter(COLOR, 20)
    shift, scale = MEASURES['brightness'][1](grays), 1 + MEASURES['contrast'][1](grays)
    saturation = (1 + MEASURES['saturation'][1](color)) / scale
    turn = MEASURES['hue'][1](color)
    assert (np.abs(shift) <= 32 / 255).all() and (np.abs(scale - 1) <= 0.4 + 1e-5).all()
    assert (np.abs(saturation - 1) <= 0.4 + 1e-4).all() and (np.abs(turn) <= 0.2 + 1e-4).all()

    expected = np.repeat(np.float64(_clip())[None], 20, axis=0)
    for strengths, name in (
        (shift, 'brightness'),
        (saturation, 'saturation'),
        (scale, 'contrast'),
        (turn, 'hue'),
    ):
        changed = [OPERATIONS[name][1](*pair) for pair in zip(expected, strengths, strict=True)]
        expected = np.clip(changed, 0, 1)
    np.testing.assert_allclose(_jitter(_clip(), 20), expected, atol=1e-4)


def test_jitter_draws_once_for_all_frames():
    still = np.broadcast_to(_clip(0.3, 0.7, (1, 4, 5, 3)), (6, 4, 5, 3))
    output = _jitter(still, 2)
    assert np.abs(output - still).max((1, 2, 3, 4)).min() > 0.01
    assert not np.allclose(output[0], output[1], atol=1e-3)
    np.testing.assert_allclose(output, np.broadcast_to(output[:, :1], output.shape), atol=1e-6)


@pytest.mark.parametrize('operation', [random_color_jitter, random_color_drop])
@pytest.mark.parametrize('probability', [0.0, 0.3, 1.0])
def test_random_color_changes_a_share_of_clips(operation, probability):
    clip = jnp.asarray(_clip(0.3, 0.7, (2, 3, 4, 3)))
    keys = jax.random.split(jax.random.key(0), 400)
    change = jax.jit(jax.vmap(lambda key: operation(key, clip, probability=probability)))
    changed = (np.asarray(change(keys)) != clip).any((1, 2, 3, 4))
    # Four standard deviations.
    assert abs(changed.mean() - probability) <= 4 * np.sqrt(probability * (1 - probability) / 400)


def test_color_drop_leaves_luma_in_all_channels():
    output = random_color_drop(jax.random.key(0), _clip(), 1.0)
    np.testing.assert_allclose(output, _numpy_gray(_clip()), atol=1e-6)


def test_jitter_is_the_same_compiled():
    keys = jax.random.split(jax.random.key(0), 2)
    plain = [random_color_jitter(key, _clip(), probability=1.0) for key in keys]
    np.testing.assert_allclose(plain, _jitter(_clip(), 2), atol=2e-6)
