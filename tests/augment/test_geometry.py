import functools

import jax
import numpy as np
import pytest
from PIL import Image

from vivit_jax.augment.geometry import in_box, mirror, random_cutout, random_erase, rotation, warp

KEY = jax.random.key(0)


def _clip(height=24, width=20, frames=3):
    rng = np.random.default_rng(0)
    return {
        'rgb': rng.integers(0, 256, (frames, height, width, 3), np.uint8),
        'depth': rng.integers(1, 60000, (frames, height, width, 1), np.uint16),
    }


def _assert_equal(clip, expected):
    assert clip.keys() == expected.keys()
    for name, frames in expected.items():
        assert clip[name].dtype == frames.dtype
        np.testing.assert_array_equal(clip[name], frames)


@pytest.mark.parametrize('is_mirrored', [True, False])
def test_mirror_exchanges_left_and_right_of_all_modalities(is_mirrored):
    clip = _clip()
    expected = {name: x[:, :, ::-1] for name, x in clip.items()} if is_mirrored else clip
    _assert_equal(jax.jit(mirror)(clip, is_mirrored), expected)


def _pil_affine(matrix, clip):
    """PIL's affine map to the nearest pixel, frame by frame."""
    coefficients = np.float64(matrix).ravel().tolist()

    def move(frame, fill):
        image = Image.fromarray(frame)
        size, kind = image.size, Image.Transform.AFFINE
        return np.asarray(image.transform(size, kind, coefficients, fillcolor=fill))

    depth = [move(frame[..., 0].astype(np.int32), 0) for frame in clip['depth']]
    return {
        'rgb': np.stack([move(frame, (128, 128, 128)) for frame in clip['rgb']]),
        'depth': np.stack(depth)[..., None].astype(np.uint16),
    }


MATRICES = {
    'identity': [[1, 0, 0], [0, 1, 0]],
    'right and up': [[1, 0, 5], [0, 1, -3.25]],
    'out of the frame': [[1, 0, 40], [0, 1, 0]],
    'shear x': [[1, 0.31, 0], [0, 1, 0]],
    'shear y': [[1, 0, 0], [-0.43, 1, 0]],
    'all': [[0.8, 0.3, -2.1], [-0.2, 1.3, 1.7]],
}


@pytest.mark.parametrize('name', MATRICES)
@pytest.mark.parametrize('size', [(24, 20), (20, 33)])
def test_warp_equals_affine_map_of_pil(name, size):
    clip = _clip(*size)
    moved = jax.jit(warp)(clip, np.float32(MATRICES[name]))
    _assert_equal(moved, _pil_affine(MATRICES[name], clip))


@pytest.mark.parametrize('degrees', [0, 17.3, -45.2, 90, 180])
@pytest.mark.parametrize('size', [(24, 20), (31, 31)])
def test_rotation_equals_that_of_pil(degrees, size):
    clip = _clip(*size)
    moved = jax.jit(lambda angle: warp(clip, rotation(angle, *size)))(np.deg2rad(degrees))
    image = [Image.fromarray(frame) for frame in clip['rgb']]
    # Theirs turns the other way.
    expected = [np.asarray(x.rotate(-degrees, fillcolor=(128, 128, 128))) for x in image]
    differ = (moved['rgb'] != np.stack(expected)).any(-1)
    # Places half-way between two pixels, which the fixed-point numbers of PIL round otherwise.
    assert differ.mean() <= 0.005


def test_warp_moves_all_frames_alike():
    clip = {name: np.repeat(x[:1], 4, axis=0) for name, x in _clip().items()}
    for moved in warp(clip, MATRICES['all']).values():
        np.testing.assert_array_equal(moved, np.broadcast_to(moved[:1], moved.shape))


@pytest.mark.parametrize(
    ('corner', 'size'), [((2, 3), (4, 5)), ((-2, 4), (5, 30)), ((7, 9), (1, 1)), ((3, 3), (0, 4))]
)
def test_box_is_a_slice_of_the_frame(corner, size):
    expected = np.zeros((8, 10, 1), bool)
    (top, left), (height, width) = corner, size
    expected[max(top, 0) : top + height, max(left, 0) : left + width] = True
    np.testing.assert_array_equal(in_box(corner, size, (8, 10)), expected)


def _cut(keys, clip, half_side_px):
    cut = functools.partial(random_cutout, clip=clip, half_side_px=half_side_px)
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(cut))(keys))


def _white(height, width):
    return {
        'rgb': np.full((2, height, width, 3), 255, np.uint8),
        'depth': np.full((2, height, width, 1), 9000, np.uint16),
    }


@pytest.mark.parametrize(
    ('height', 'width', 'half_side_px', 'side'),
    [(224, 224, 60, 120), (224, 230, 80, 160), (64, 112, 40, 22), (48, 32, 28, 8)],
)
def test_cutout_is_a_black_square_that_scales_with_the_frame(height, width, half_side_px, side):
    output = _cut(jax.random.split(KEY, 64), _white(height, width), half_side_px)
    assert set(np.unique(output['rgb'])) == {0, 255}
    assert set(np.unique(output['depth'])) == {0, 9000}
    hole = output['rgb'] == 0
    np.testing.assert_array_equal(hole, np.broadcast_to(output['depth'] == 0, hole.shape))
    np.testing.assert_array_equal(hole, np.broadcast_to(hole[:, :1, :, :, :1], hole.shape))
    hole = hole[:, 0, :, :, 0]
    rows, columns = hole.any(2), hole.any(1)
    np.testing.assert_array_equal(hole, rows[:, :, None] & columns[:, None])
    for line in (rows, columns):
        assert (np.abs(np.diff(line)).sum(1) <= 2).all()  # in one piece
        assert line.sum(1).max() == side
        assert (line.sum(1) >= side / 2).all()  # the centre is in the frame


def test_cutout_centers_are_uniform():
    output = _cut(jax.random.split(KEY, 4000), _white(8, 10), 60.0)
    hole = output['rgb'][:, 0, :, :, 0] == 0

    def share(size):  # of the centres c with c - 2 <= pixel < c + 2
        pixel, center = np.mgrid[:size, :size]
        return ((center - 2 <= pixel) & (pixel < center + 2)).mean(1)

    expected = np.outer(share(8), share(10))
    # Five standard deviations.
    bound = 5 * np.sqrt(expected * (1 - expected) / 4000)
    assert (np.abs(hole.mean(0) - expected) < bound).all()


def _erase(clip, num_keys, probability=1.0):
    erase = functools.partial(random_erase, clip=clip, probability=probability)
    keys = jax.random.split(KEY, num_keys)
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(erase))(keys))


def _erased_sides(depth):
    """Height and width of the box of each clip [k t h w 1] of which all else is above 0."""
    hole = depth[..., 0] == 0
    np.testing.assert_array_equal(hole, np.broadcast_to(hole[:, :1], hole.shape))
    rows, columns = hole[:, 0].any(2), hole[:, 0].any(1)
    np.testing.assert_array_equal(hole[:, 0], rows[:, :, None] & columns[:, None])
    for line in (rows, columns):
        assert (np.abs(np.diff(line)).sum(1) <= 2).all()  # in one piece
    return rows.sum(1), columns.sum(1), rows, columns


def test_erasing_replaces_one_box_by_noise():
    clip = _white(60, 70)
    clip['rgb'] = clip['rgb'] * 0 + 77
    output = _erase(clip, 200)
    *_, rows, columns = _erased_sides(output['depth'])
    hole = np.broadcast_to(
        (rows[:, :, None] & columns[:, None])[:, None, ..., None], (200, 2, 60, 70, 3)
    )
    assert (output['rgb'][~hole] == 77).all()
    noise = output['rgb'][hole]
    # Uniform in 0 to 255: mean 127.5, standard deviation 73.9, and every level as often.
    assert abs(noise.mean() - 127.5) < 1 and abs(noise.std() - 73.9) < 1
    counts = np.bincount(noise, minlength=256) * 256 / noise.size
    assert counts.min() > 0.85 and counts.max() < 1.15
    # Other noise in other frames.
    first, second = (output['rgb'][:, frame][hole[:, frame]] for frame in (0, 1))
    assert (first == second).mean() < 0.06


def test_erased_area_and_aspect_follow_the_paper():
    size = 200
    depth = np.ones((1, size, size, 1), np.uint16)
    height, width, *_ = _erased_sides(_erase({'depth': depth}, 2000)['depth'])
    area, aspect = height * width / size**2, height / width
    # Where no side can be cut, area is uniform in (0.02, 1/3) and the logarithm of aspect too.
    assert area.min() > 0.018 and area.max() < 0.34
    assert aspect.min() > 0.28 and aspect.max() < 1 / 0.28
    assert abs(area.mean() - (0.02 + 1 / 3) / 2) < 4 * 0.0905 / np.sqrt(2000) + 0.005
    assert abs(np.log(aspect).mean()) < 4 * 0.695 / np.sqrt(2000)
    assert abs(np.log(aspect).std() - 2 * np.log(1 / 0.3) / np.sqrt(12)) < 0.05


def test_boxes_are_cut_to_a_flat_frame_and_touch_all_of_it():
    depth = np.ones((1, 6, 60, 1), np.uint16)
    height, width, rows, columns = _erased_sides(_erase({'depth': depth}, 1000)['depth'])
    assert height.max() == 6 and (height >= 1).all() and (width >= 1).all()
    assert rows.any(0).all() and columns.any(0).all()


def test_erasing_changes_a_share_of_clips():
    output = _erase(_white(12, 12), 400, probability=0.25)
    changed = (output['depth'] == 0).any((1, 2, 3, 4))
    # Four standard deviations.
    assert abs(changed.mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 400)
