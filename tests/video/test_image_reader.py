import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vivit_jax.video.crops import Crops
from vivit_jax.video.frame_reader import VideoError
from vivit_jax.video.image_reader import ImageReader, open_frames
from vivit_jax.video.open import open_video
from vivit_jax.video.video_reader import VideoReader

HEIGHT, WIDTH = 42, 51


def _picture(seed=0, size=(WIDTH, HEIGHT)):
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def _encode(picture, **options):
    file = io.BytesIO()
    picture.save(file, **options)
    return file.getvalue()


def _jpeg(seed, **options):
    return _encode(_picture(seed), format='JPEG', quality=95, **options)


def _with_alpha(picture):
    picture = picture.copy()
    picture.putalpha(77)
    return picture


def _write_numbered(folder, names):
    """Writes pictures whose shade of grey is ten times their place in `names`."""
    folder.mkdir(exist_ok=True)
    for place, name in enumerate(names):
        Image.new('RGB', (16, 8), (10 * place,) * 3).save(folder / name)


def _places(reader):
    return (reader.read(range(len(reader))).mean(axis=(1, 2, 3)) / 10).round().tolist()


JPEG = {'format': 'JPEG', 'quality': 95}
PNG = {'format': 'PNG'}


# Where colours are stored at half the size, decoders differ in how they fill the gaps.
@pytest.mark.parametrize(
    ('content', 'mean', 'most'),
    [
        (_encode(_picture(), **JPEG, subsampling=0), 0.1, 3),
        (_encode(_picture(), **JPEG, subsampling=2), 4, 40),
        (_encode(_picture(), **JPEG, subsampling=0, progressive=True), 0.1, 3),
        (_encode(_picture().convert('L'), **JPEG), 0.1, 1),
        (_encode(_picture(), **PNG), 0, 0),
        (_encode(_picture().convert('L'), **PNG), 0, 0),
        (_encode(_picture().convert('1'), **PNG), 0, 0),
        (_encode(_picture().quantize(64), **PNG), 0, 0),
        (_encode(_with_alpha(_picture()), **PNG), 0, 0),
    ],
    ids=[
        'jpeg',
        'jpeg-420',
        'jpeg-progressive',
        'jpeg-grey',
        'png',
        'png-grey',
        'png-bits',
        'png-palette',
        'png-alpha',
    ],
)
def test_colors_are_those_of_pillow(content, mean, most):
    expected = np.asarray(Image.open(io.BytesIO(content)).convert('RGB'), int)
    with ImageReader([content], 'a') as reader:
        pixels = reader.read([0])
    assert pixels.shape == (1, HEIGHT, WIDTH, 3)
    assert pixels.dtype == np.uint8
    difference = np.abs(pixels[0] - expected)
    assert difference.mean() <= mean
    assert difference.max() <= most


@pytest.mark.parametrize('color', [(0, 0, 0), (255, 255, 255), (255, 0, 0), (20, 200, 240)])
@pytest.mark.parametrize('subsampling', [0, 2])
def test_jpeg_has_full_range(color, subsampling):
    content = _encode(Image.new('RGB', (32, 32), color), **JPEG, subsampling=subsampling)
    with ImageReader([content], 'a') as reader:
        np.testing.assert_allclose(reader.read([0]).mean(axis=(0, 1, 2)), color, atol=2)


def test_read_gives_frames_asked_for_in_any_order():
    images = [_encode(_picture(seed), **PNG) for seed in range(5)]
    expected = np.stack([_picture(seed) for seed in range(5)])
    with ImageReader(images, 'a') as reader:
        assert len(reader) == 5
        for indices in ([0, 1, 2, 3, 4], [4, 0, 4, 2], [3]):
            np.testing.assert_array_equal(reader.read(indices), expected[indices])
        with pytest.raises(IndexError, match='a: frames 0 … 5 asked for, but it has 5'):
            reader.read([0, 5])


def test_frames_not_asked_for_are_not_decoded():
    with ImageReader([b'broken', _jpeg(1)], 'a') as reader:
        assert reader.read([1, 1]).shape == (2, HEIGHT, WIDTH, 3)


@pytest.mark.parametrize(('height', 'width'), [(HEIGHT, WIDTH), (84, 102), (30, 36)])
def test_crops_are_boxes_of_resized_image(height, width):
    corners = ((0, 0), (height - 20, width - 24), (3, 5))
    with ImageReader([_jpeg(0, subsampling=0), _jpeg(1, subsampling=0)], 'a') as reader:
        crops = reader.read([1, 0], lambda *_: Crops(height, width, corners, (20, 24)))
    assert crops.shape == (3, 2, 20, 24, 3)
    for i, seed in enumerate([1, 0]):
        resized = _picture(seed).resize((width, height), Image.Resampling.BILINEAR)
        for crop, (top, left) in zip(crops[:, i], corners, strict=True):
            box = np.asarray(resized, int)[top : top + 20, left : left + 24]
            assert np.abs(crop - box).mean() < 4


@pytest.mark.parametrize(
    'names',
    [
        ['00001.jpg', '00002.jpg', '00003.jpg'],
        ['000000.jpg', '000001.jpg', '000002.jpg'],
        ['img_00001.jpg', 'img_00002.jpg', 'img_00010.jpg'],
        ['frame_0000000009.jpg', 'frame_0000000010.jpg', 'frame_0000000100.jpg'],
        ['9.png', '10.png', '100.png'],
        ['v1_2.PNG', 'v1_10.PNG'],
        ['a b-1.jpeg', 'a b-2.jpeg'],
    ],
    ids=lambda names: names[0],
)
def test_folder_is_ordered_by_number(tmp_path, names):
    _write_numbered(tmp_path / 'a', reversed(names))
    with open_frames(tmp_path / 'a') as reader:
        assert reader.name == str(tmp_path / 'a')
        assert _places(reader) == list(range(len(names)))[::-1]


def test_other_files_in_folder_are_left_out(tmp_path):
    _write_numbered(tmp_path, ['img_00001.jpg', 'img_00002.jpg'])
    for name in ('flow_x_00001.jpg', 'flow_y_00002.jpg', '._img_00001.jpg', '.1.jpg', 'a2.txt'):
        (tmp_path / name).write_text('x')
    for name in ('thumb_0001.jpg', 'Thumbs.db', 'cover.jpg', 'img_00003.jpg.part'):
        (tmp_path / name).write_text('x')
    with open_frames(tmp_path) as reader:
        assert _places(reader) == [0, 1]


@pytest.mark.parametrize(
    ('part', 'expected'),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({'start_frame': 2}, [2, 3, 4]),
        ({'num_frames': 2}, [0, 1]),
        ({'start_frame': 3, 'num_frames': 2}, [3, 4]),
    ],
)
def test_part_of_folder_is_read(tmp_path, part, expected):
    _write_numbered(tmp_path, [f'img_{number:05d}.png' for number in range(1, 6)])
    with open_frames(tmp_path, **part) as reader:
        assert _places(reader) == expected


@pytest.mark.parametrize(
    ('part', 'expected'),
    [
        ({'num_frames': 6}, '0 … 5'),
        ({'start_frame': 3, 'num_frames': 3}, '3 … 5'),
        ({'start_frame': 5}, 'from 5 on'),
        ({'start_frame': -1, 'num_frames': 2}, '-1 … 0'),
        ({'num_frames': 0}, '0 … -1'),
    ],
)
def test_part_beyond_the_frames_raises_found_and_expected(tmp_path, part, expected):
    _write_numbered(tmp_path / 'a', [f'{number}.png' for number in range(5)])
    with pytest.raises(VideoError, match=f'a: found 5 frames, but expected frames {expected}'):
        open_frames(tmp_path / 'a', **part)


@pytest.mark.parametrize(
    ('files', 'reason'),
    [
        ([], 'none of its 0 files'),
        (['notes.txt', 'cover.jpg'], 'none of its 2 files'),
        (
            ['a_1.jpg', 'b_1.jpg', 'b_2.jpg'],
            r'several kinds of images: a_#.jpg \(1\), b_#.jpg \(2\)',
        ),
        (['1.jpg', '2.png'], r'several kinds .*: #.jpg \(1\), #.png \(1\)'),
    ],
)
def test_unusable_folder_raises_its_name_and_reason(tmp_path, files, reason):
    (tmp_path / 'v').mkdir()
    for name in files:
        (tmp_path / 'v' / name).write_text('x')
    with pytest.raises(VideoError, match=rf'/v: .*{reason}'):
        open_frames(tmp_path / 'v')


def test_missing_folder_and_empty_list_raise(tmp_path):
    with pytest.raises(VideoError, match='absent: no folder of frames'):
        open_frames(tmp_path / 'absent')
    with pytest.raises(VideoError, match='record 3: has no frames'):
        ImageReader([], 'record 3')


@pytest.mark.parametrize(
    'content',
    [
        b'',
        b'hello',
        b'\xff\xd8',
        _jpeg(0)[:300],
        _jpeg(0)[: len(_jpeg(0)) * 8 // 10],
        _encode(_picture(), **PNG)[:400],
        b'\x89PNG' + bytes(100),
    ],
    ids=['empty', 'text', 'start', 'header', 'cut', 'cut-png', 'zeros'],
)
def test_broken_image_raises_its_name(tmp_path, content):
    for number in (1, 3):
        (tmp_path / f'{number}.jpg').write_bytes(_jpeg(number))
    (tmp_path / '2.jpg').write_bytes(content)
    with open_frames(tmp_path) as reader:
        with pytest.raises(
            VideoError, match=r'2\.jpg: (damaged, or no JPEG or PNG|the file is empty)'
        ):
            reader.read([0, 1, 2])
        # A broken picture leaves no trace in the pictures after it.
        clip = reader.read([0, 2])
    with ImageReader([_jpeg(1), _jpeg(3)], 'a') as whole:
        np.testing.assert_array_equal(clip, whole.read([0, 1]))
    with (
        ImageReader([_jpeg(1), content], 'record 5') as reader,
        pytest.raises(VideoError, match='record 5, frame 1: damaged'),
    ):
        reader.read([0, 1])


def test_images_of_different_sizes_raise():
    images = [_jpeg(0), _encode(_picture(size=(30, 20)), **JPEG)]
    with (
        ImageReader(images, 'a') as reader,
        pytest.raises(VideoError, match=r'a, frame 1: has 20 x 30 pixels, .* have 42 x 51'),
    ):
        reader.read([0, 1])


def test_vanished_image_raises_its_name(tmp_path):
    _write_numbered(tmp_path, ['1.png', '2.png'])
    with open_frames(tmp_path) as reader:
        Path(tmp_path / '2.png').unlink()
        with pytest.raises(VideoError, match=r'2\.png: no such file'):
            reader.read([0, 1])


def test_open_video_tells_folders_from_files(tmp_path, synthetic_folder):
    path = synthetic_folder / 'train' / '00000.mp4'
    _write_numbered(tmp_path, ['1.png', '2.png'])
    with open_video(path) as video, open_video(path.read_bytes(), name='a') as memory:
        assert isinstance(video, VideoReader)
        assert memory.name == 'a'
        np.testing.assert_array_equal(video.read([3]), memory.read([3]))
    with open_video(path, start_sec=0.25) as video:
        assert len(video) == 7
    with open_video(str(tmp_path), start_frame=1) as video:
        assert _places(video) == [1]
    with pytest.raises(VideoError, match=r'have no times: start_sec=1\.0 cannot be used'):
        open_video(tmp_path, start_sec=1.0)
    with pytest.raises(VideoError, match='is no folder of frames: num_frames=3 cannot be used'):
        open_video(path, num_frames=3)
    with pytest.raises(VideoError, match='no such file'):
        open_video(tmp_path / 'absent')
