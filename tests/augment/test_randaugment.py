import collections
import functools

import jax
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from vivit_jax.augment.randaugment import operations, random_augment

KEY = jax.random.key(0)
NAMES = list(operations(KEY, 0))


def _rgb(seed=0, shape=(4, 24, 20, 3)):
    """Noise whose channels differ in range, none of them full."""
    rng = np.random.default_rng(seed)
    return rng.integers([10, 40, 5], [200, 250, 130], shape).astype(np.uint8)


def _augment(keys, rgb, **settings):
    """The clip, changed with each of some keys, [k t h w 3]."""
    settings = {'num_layers': 1, 'magnitude': 7.0, **settings}
    change = jax.vmap(functools.partial(random_augment, **settings), in_axes=(0, None))
    return np.asarray(jax.jit(change)(keys, {'rgb': rgb})['rgb'])


def _apply(name, clips, magnitude):
    operation = operations(KEY, magnitude)[name]
    return np.asarray(jax.jit(jax.vmap(lambda rgb: operation({'rgb': rgb})['rgb']))(clips))


def _as_image(change):
    """Applies `change` to the frames of a clip, stacked into one image."""

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


def _transform(*coefficients):
    return _as_frames(
        lambda frame: frame.transform(
            frame.size, Image.Transform.AFFINE, coefficients, fillcolor=(128,) * 3
        )
    )


def _as_frames(change):
    def apply(rgb):
        return np.stack([np.asarray(change(Image.fromarray(frame))) for frame in rgb])

    return apply


# Independent implementations, and how many levels apart: PIL cuts off to whole levels after
# each blend, and before it rounds the gray, mean or smoothed value, whose error a factor of up to
# 3.7 makes 1.35.
COLORS = {
    'identity': (lambda rgb, m: rgb, 0),
    'auto_contrast': (_as_image(lambda image, m: ImageOps.autocontrast(image)), 1),
    'equalize': (_as_image(lambda image, m: ImageOps.equalize(image)), 0),
    'invert': (_as_image(lambda image, m: ImageOps.invert(image)), 0),
    'posterize': (lambda rgb, m: rgb >> (8 - int(m / 10 * 4)) << (8 - int(m / 10 * 4)), 0),
    'solarize': (_as_image(lambda image, m: ImageOps.solarize(image, int(m / 10 * 256))), 0),
    'solarize_add': (_solarize_add, 0),
    'color': (_enhance(ImageEnhance.Color), 2),
    'contrast': (_enhance(ImageEnhance.Contrast), 2),
    'brightness': (_enhance(ImageEnhance.Brightness), 1),
    'sharpness': (_sharpness, 2),
}

# What PIL does to frames of 24x20 for a magnitude and a direction of 1 or -1.
GEOMETRY = {
    'rotate': lambda m: _as_frames(
        lambda frame: frame.rotate(-3 * m, fillcolor=(128,) * 3),
    ),
    'shear_x': lambda m: _transform(1, 0.03 * m, 0, 0, 1, 0),
    'shear_y': lambda m: _transform(1, 0, 0, 0.03 * m, 1, 0),
    'translate_x': lambda m: _transform(1, 0, 10 * m * 20 / 224, 0, 1, 0),
    'translate_y': lambda m: _transform(1, 0, 0, 0, 1, 10 * m * 20 / 224),
}


@pytest.mark.parametrize('name', COLORS)
@pytest.mark.parametrize('magnitude', [0, 7, 15, 20])
def test_change_of_color_equals_that_of_pil(name, magnitude):
    clips = np.stack([_rgb(0), _rgb(1) // 2])
    reference, levels_apart = COLORS[name]
    expected = np.stack([reference(rgb, magnitude) for rgb in clips])
    compiled = _apply(name, clips, magnitude)
    plain = operations(KEY, magnitude)[name]({'rgb': clips[0]})['rgb']
    assert compiled.dtype == plain.dtype == np.uint8
    assert compiled.shape == clips.shape
    np.testing.assert_allclose(np.int32(compiled), expected, rtol=0, atol=levels_apart)
    # What is half-way between two levels may be rounded either way.
    difference = np.abs(np.int32(plain) - compiled[0])
    assert difference.max() <= 1 and difference.astype(bool).mean() < 0.01


def test_references_are_all_operations_but_cutout():
    assert {*COLORS, 'cutout'} == set(operations(KEY, 0, geometry=False))
    assert {*COLORS, *GEOMETRY, 'cutout'} == set(NAMES)


@pytest.mark.parametrize('name', GEOMETRY)
@pytest.mark.parametrize('magnitude', [3, 14])
def test_change_of_place_equals_that_of_pil_in_either_direction(name, magnitude):
    rgb = _rgb()
    change = jax.vmap(lambda key: operations(key, magnitude)[name]({'rgb': rgb})['rgb'])
    outputs = np.asarray(jax.jit(change)(jax.random.split(KEY, 100)))
    assert outputs.dtype == np.uint8
    expected = np.stack([GEOMETRY[name](sign * magnitude)(rgb) for sign in (1, -1)])
    # Places half-way between two pixels, which the fixed-point numbers of PIL round otherwise.
    share = (outputs[:, None] != expected).any(-1).mean((2, 3, 4))
    assert (share.min(1) <= 0.005).all()
    assert (share.max(1) > 0.1).all()
    assert 30 < (share[:, 0] < share[:, 1]).sum() < 70  # four standard deviations


def _with_depth(shape=(3, 24, 20)):
    rng = np.random.default_rng(0)
    depth = rng.integers(1, 256, (*shape, 1)).astype(np.uint16)
    return {'rgb': np.repeat(depth, 3, axis=-1).astype(np.uint8), 'depth': depth}


@pytest.mark.parametrize('name', NAMES)
def test_depth_changes_place_with_rgb_and_no_color(name):
    clip = _with_depth()
    output = jax.tree.map(np.asarray, jax.jit(operations(KEY, 15)[name])(clip))
    assert {name: x.dtype for name, x in output.items()} == {'rgb': np.uint8, 'depth': np.uint16}
    if name in COLORS:
        np.testing.assert_array_equal(output['depth'], clip['depth'])
        return
    outside = output['depth'][..., 0] == 0
    assert 0.05 < outside.mean() < 0.9
    fill = 0 if name == 'cutout' else 128
    np.testing.assert_array_equal(output['rgb'][outside], fill)
    inside = ~outside
    np.testing.assert_array_equal(output['rgb'][inside], np.repeat(output['depth'][inside], 3, -1))


@pytest.mark.parametrize('name', NAMES)
def test_operation_takes_depth_alone(name):
    clip = _with_depth()
    both = operations(KEY, 15)[name](clip)
    alone = operations(KEY, 15)[name]({'depth': clip['depth']})
    assert alone.keys() == {'depth'}
    np.testing.assert_array_equal(alone['depth'], both['depth'])


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
        *((name, 0) for name in GEOMETRY),
    ],
)
def test_operation_without_strength_is_identity(name, magnitude):
    clip = _rgb()[None]
    np.testing.assert_array_equal(_apply(name, clip, magnitude), clip)


def test_strength_of_cutout_is_40_px_of_224():
    white = {'rgb': np.full((1, 224, 230, 3), 255, np.uint8)}
    cut = jax.jit(jax.vmap(lambda key: operations(key, 15)['cutout'](white)['rgb']))
    hole = np.asarray(cut(jax.random.split(KEY, 16)))[:, 0, ..., 0] == 0
    assert hole.any(1).sum(1).max() == hole.any(2).sum(1).max() == 120


def _closest(outputs, candidates):
    """For each output the index of the candidate that it equals up to one level, or -1."""
    distance = np.stack([np.abs(x - np.int32(candidates)).max((1, 2, 3, 4)) for x in outputs])
    return np.where(distance.min(1) <= 1, distance.argmin(1), -1)


def _recolored(clips, magnitude=7.0):
    """Each clip after each change of colour, [n t h w 3]."""
    return np.concatenate([_apply(name, clips, magnitude) for name in COLORS])


@pytest.mark.parametrize('geometry', [True, False])
def test_operations_are_drawn_uniformly(geometry):
    clip = _rgb(shape=(1, 20, 16, 3))
    names = list(operations(KEY, 0, geometry))
    expected = 100
    outputs = _augment(jax.random.split(KEY, expected * len(names)), clip, geometry=geometry)
    found = collections.Counter(_closest(outputs, _recolored(clip[None])))
    moved = found.pop(-1)
    assert set(found) == set(range(len(COLORS)))
    # Four standard deviations.
    assert all(62 < count < 138 for count in found.values())
    num_moving = len(names) - len(COLORS)
    assert abs(moved - expected * num_moving) < 4 * np.sqrt(expected * num_moving)


def test_changes_of_place_are_drawn_uniformly():
    clip = _rgb(shape=(1, 20, 20, 3))
    candidates = []
    for name in GEOMETRY:
        seen = [operations(jax.random.key(i), 7.0)[name]({'rgb': clip})['rgb'] for i in range(8)]
        candidates.append(np.unique(seen, axis=0))
        assert len(candidates[-1]) == 2  # directions
    outputs = _augment(jax.random.split(KEY, 1700), clip)
    found = collections.Counter(_closest(outputs, np.concatenate(candidates)))
    # 50 expected of each direction; four standard deviations.
    assert all(22 < found[i] < 78 for i in range(10))


def test_two_layers_are_two_independent_operations():
    clip = _rgb(shape=(1, 20, 16, 3))
    pairs = _recolored(_recolored(clip[None]))
    outputs = _augment(jax.random.split(KEY, 600), clip, num_layers=2, geometry=False)
    found = _closest(outputs, pairs)
    # No cutout in 121 of 144; four standard deviations.
    assert abs((found >= 0).mean() - 121 / 144) < 4 * np.sqrt(121 / 144 * 23 / 144 / 600)
    assert len(set(found)) > 90  # of 121, a few of which are equal: the identity before or after
    counts = collections.Counter(found[found >= 0] % 11)
    assert max(counts.values()) < 0.25 * len(found)


def test_no_layers_leave_the_clip():
    np.testing.assert_array_equal(_augment(KEY[None], _rgb(), num_layers=0)[0], _rgb())


@pytest.mark.parametrize('magnitude', [0.0, 15.0, 30.0])
def test_all_frames_get_the_same(magnitude):
    still = np.repeat(_rgb(shape=(1, 16, 12, 3)), 3, axis=0)
    output = _augment(jax.random.split(KEY, 100), still, num_layers=2, magnitude=magnitude)
    np.testing.assert_array_equal(output, np.broadcast_to(output[:, :1], output.shape))
    assert len(np.unique(output.reshape(100, -1), axis=0)) > 20


def test_loop_over_clips_equals_vmap():
    clip = {'rgb': _rgb(shape=(2, 12, 10, 3))}
    keys = jax.random.split(KEY, 40)
    change = functools.partial(random_augment, num_layers=1, magnitude=7.0)
    looped = jax.jit(lambda keys: jax.lax.map(lambda key: change(key, clip), keys))(keys)['rgb']
    # What is half-way between two levels may be rounded either way.
    difference = np.abs(np.int32(_augment(keys, clip['rgb'])) - looped)
    assert difference.max() <= 1 and difference.astype(bool).mean() < 0.01
