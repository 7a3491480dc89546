import numpy as np
import pytest

from vivit_jax.video.crops import Crops, RandomCrop, resize_short_side, view_crops
from vivit_jax.video.preprocessing import Preprocessing

SPEC = Preprocessing(short_side=64, crop_size=56)
# height, width: landscape, portrait, square, very long, smaller than the crop, a single pixel
SHAPES = [(240, 320), (320, 240), (100, 100), (48, 1000), (17, 23), (1, 1)]


def _check_inside(crops: Crops, size: int):
    assert crops.size == (size, size)
    for top, left in crops.corners:
        assert 0 <= top <= crops.height - size
        assert 0 <= left <= crops.width - size


@pytest.mark.parametrize(
    ('shape', 'short_side', 'expected'),
    [
        ((240, 320), 60, (60, 80)),
        ((320, 240), 60, (80, 60)),
        ((100, 100), 256, (256, 256)),
        ((1080, 1920), 256, (256, 455)),
        ((256, 340), 256, (256, 340)),
        ((1, 1), 8, (8, 8)),
    ],
)
def test_short_side_resize_keeps_aspect(shape, short_side, expected):
    assert resize_short_side(*shape, short_side) == expected


@pytest.mark.parametrize('shape', SHAPES)
def test_view_crops_run_along_longer_side(shape):
    crops = view_crops(*shape, SPEC, 3)
    height, width = crops.height, crops.width
    assert min(height, width) == 64
    # Half a pixel of rounding on the longer side is all that may change the aspect ratio.
    scale = 64 / min(shape)
    assert abs(height - shape[0] * scale) <= 0.5
    assert abs(width - shape[1] * scale) <= 0.5
    _check_inside(crops, 56)
    tops, lefts = zip(*crops.corners, strict=True)
    along, across, length = (tops, lefts, height) if height > width else (lefts, tops, width)
    assert along[0] == 0
    assert along[2] == length - 56
    assert abs(along[1] - (length - 56) / 2) <= 0.5
    assert across == (4, 4, 4)


def test_two_view_crops_are_the_ends():
    assert view_crops(64, 100, SPEC, 2).corners == ((4, 0), (4, 44))
    assert view_crops(100, 64, SPEC, 2).corners == ((0, 4), (44, 4))


def test_five_view_crops_are_equally_spaced():
    assert [left for _, left in view_crops(64, 96, SPEC, 5).corners] == [0, 10, 20, 30, 40]


@pytest.mark.parametrize('shape', SHAPES)
def test_one_view_crop_is_the_centre(shape):
    crops = view_crops(*shape, SPEC, 1)
    (corner,) = crops.corners
    for start, length in zip(corner, (crops.height, crops.width), strict=True):
        assert abs((start + 28) - length / 2) <= 0.5


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize(
    'options',
    [{}, {'scale_jitter': (0.5, 1.5)}, {'resized_area': (0.05, 1.0)}],
    ids=['plain', 'jitter', 'resized'],
)
def test_random_crop_lies_inside(shape, options):
    crop = RandomCrop(SPEC, **options)
    for seed in range(100):
        crops = crop(*shape, np.random.default_rng(seed))
        _check_inside(crops, 56)
        assert len(crops.corners) == 1


def test_random_crop_reaches_every_place():
    crop = RandomCrop(Preprocessing(short_side=6, crop_size=4))
    rng = np.random.default_rng(0)
    corners = {crop(12, 14, rng).corners[0] for _ in range(300)}
    assert corners == {(top, left) for top in range(3) for left in range(4)}


def test_scale_jitter_fills_its_range():
    crop = RandomCrop(SPEC, scale_jitter=(1.0, 1.5))
    rng = np.random.default_rng(0)
    sizes = [crop(100, 200, rng) for _ in range(2000)]
    short = {crops.height for crops in sizes}
    assert min(short) == 64
    assert max(short) == 96
    assert len(short) == 33  # every whole number of pixels between the two
    assert all(abs(crops.width - 2 * crops.height) <= 1 for crops in sizes)


def test_scale_jitter_never_goes_below_crop():
    crop = RandomCrop(SPEC, scale_jitter=(0.1, 0.2))
    crops = crop(100, 200, np.random.default_rng(0))
    assert (crops.height, crops.width) == (56, 112)


@pytest.mark.parametrize('shape', [(400, 700), (700, 400)])
def test_resized_crop_keeps_area_and_aspect(shape):
    # Areas where no side of the part is longer than the frame, so that none is cut off.
    area_range, aspect_range = (0.2, 0.5), (3 / 4, 4 / 3)
    crop = RandomCrop(SPEC, resized_area=area_range, aspect_ratio=aspect_range)
    rng = np.random.default_rng(0)
    areas, aspects = [], []
    for _ in range(1000):
        crops = crop(*shape, rng)
        part_height = 56 * shape[0] / crops.height
        part_width = 56 * shape[1] / crops.width
        areas.append(part_height * part_width / min(shape) ** 2)
        aspects.append(part_width / part_height)
    # Whole pixels of the resized frame: up to 1 % on each side of the part.
    for values, (low, high) in ((areas, area_range), (aspects, aspect_range)):
        assert 0.98 * low <= min(values) < 1.05 * low
        assert 0.95 * high < max(values) <= 1.02 * high
    # The aspect ratio is as often above 1 as below, which a uniform draw would not be.
    assert abs(np.mean(np.log(aspects))) < 0.02


@pytest.mark.parametrize(
    'options', [{'scale_jitter': (0.9, 1.5)}, {'resized_area': (0.1, 1.0)}], ids=['jitter', 'area']
)
def test_same_seed_draws_same_crop(options):
    crop = RandomCrop(SPEC, **options)

    def draw(seed: int) -> list[Crops]:
        rng = np.random.default_rng(seed)
        return [crop(240, 320, rng) for _ in range(5)]

    assert draw(0) == draw(0)
    assert draw(0) != draw(1)
