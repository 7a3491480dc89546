"""Depth videos: decoded without loss, resized to the nearest pixel, and normalized."""

import av
import numpy as np
import pytest

from vivit_jax.video.array_reader import ArrayReader
from vivit_jax.video.clips import read_view
from vivit_jax.video.crops import Crops
from vivit_jax.video.depth_range import describe_depths
from vivit_jax.video.frame_reader import VideoError
from vivit_jax.video.open import open_video
from vivit_jax.video.preprocessing import Preprocessing, normalize_depth
from vivit_jax.video.recording import Recording
from vivit_jax.video.synthetic import write_video

SHAPE = (5, 22, 30)  # frames whose lines FFmpeg pads


def depths(dtype=np.uint16, shape=SHAPE):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape, dtype)


def encode(path, frames, codec, pixels, given=None, rotation=0):
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        if rotation:
            stream.set_display_rotation(rotation)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format=given or pixels)))
        container.mux(stream.encode())
    return path


def read_all(path):
    with open_video(path) as video:
        found = video.read(range(len(video)), kind='depth')
    assert found.dtype == np.uint16
    return found[..., 0]


@pytest.mark.parametrize(
    ('codec', 'pixels', 'dtype'),
    [
        ('ffv1', 'gray16le', np.uint16),
        ('png', 'gray16be', np.uint16),
        ('ffv1', 'gray', np.uint8),
        ('png', 'gray', np.uint8),
    ],
)
def test_depth_video_is_decoded_without_loss(tmp_path, codec, pixels, dtype):
    frames = depths(dtype)
    path = encode(tmp_path / 'depth.avi', frames, codec, pixels)
    np.testing.assert_array_equal(read_all(path), frames)


@pytest.mark.parametrize(('codec', 'pixels'), [('ffv1', 'bgr0'), ('png', 'rgb24')])
def test_grey_in_colours_is_depth(tmp_path, codec, pixels):
    frames = depths(np.uint8)
    path = encode(tmp_path / 'depth.avi', np.stack([frames] * 3, -1), codec, pixels, 'rgb24')
    np.testing.assert_array_equal(read_all(path), frames)


def test_brightness_of_yuv_is_depth_from_0_to_255(tmp_path):
    # A lossless H.264 video keeps the 220 levels that limited YUV has.
    levels = np.linspace(16, 235, 16 * 16).round().astype(np.uint8).reshape(16, 16)
    frames = np.full((3, 24, 16), 128, np.uint8)  # brightness above colours, as in yuv420p
    frames[:, :16] = levels
    with av.open(str(tmp_path / 'depth.mp4'), 'w') as container:
        stream = container.add_stream('libx264', rate=10, options={'qp': '0'})
        stream.height, stream.width, stream.pix_fmt = 16, 16, 'yuv420p'
        for frame in frames:
            frame = av.VideoFrame.from_ndarray(frame, format='yuv420p')
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    expected = (levels - 16.0) * 255 / 219
    np.testing.assert_allclose(read_all(tmp_path / 'depth.mp4')[1], expected, atol=0.51)


def test_folder_of_16_bit_images_is_a_depth_video(tmp_path):
    from PIL import Image

    frames = depths()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f'MDepth-{number + 1:08d}.png')
    np.testing.assert_array_equal(read_all(tmp_path), frames)


def test_coloured_depth_is_an_error(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), np.uint8)
    path = encode(tmp_path / 'depth.mkv', rgb, 'ffv1', 'bgr0', 'rgb24')
    with pytest.raises(VideoError, match=r'depth.mkv: frame 0 of 5 .*it has colours'):
        read_all(path)


def test_rgb_video_is_no_depth(synthetic_folder):
    with pytest.raises(VideoError, match=r'00000.mp4: frame 0 of .* it has colours'):
        read_all(synthetic_folder / 'train/00000.mp4')


def test_resized_pixel_is_the_nearest_and_never_a_mean():
    frames = depths(shape=(2, 8, 12))
    crops = Crops(12, 18, ((2, 3), (0, 0)), (9, 15))
    found = ArrayReader(frames, 10, kind='depth').read([1, 0], lambda *_: crops, kind='depth')
    assert found.shape == (2, 2, 9, 15, 1)
    rows, columns = (np.floor((np.arange(n) + 0.5) * 2 / 3).astype(int) for n in (12, 18))
    whole = frames[[1, 0]][:, rows][:, :, columns]
    np.testing.assert_array_equal(found[0, ..., 0], whole[:, 2:11, 3:18])
    np.testing.assert_array_equal(found[1, ..., 0], whole[:, :9, :15])


def test_sideways_depth_is_turned_like_its_rgb(tmp_path):
    frames = depths(np.uint8)
    encode(tmp_path / 'turned.mov', frames, 'png', 'gray', rotation=90)
    with open_video(tmp_path / 'turned.mov') as video:
        rgb, depth = video.read([0]), video.read([0], kind='depth')
    assert depth.shape == (1, 30, 22, 1)
    np.testing.assert_array_equal(rgb[..., :1], depth)


def test_far_and_near_span_the_range_and_zero_is_no_measurement():
    spec = Preprocessing(depth_range=(1000, 500), value_range=(-2, 2))
    depth = np.array([0, 1, 500, 750, 1000, 65535], np.uint16)
    np.testing.assert_allclose(normalize_depth(depth, spec), [-2, 2, 2, 0, -2, -2])
    spec = Preprocessing(depth_range=(0, 255))
    np.testing.assert_allclose(normalize_depth(np.array([0, 51, 255]), spec), [-1, -0.6, 1])


def test_depth_without_a_range_is_an_error():
    with pytest.raises(ValueError, match='depth_range is not set'):
        normalize_depth(np.ones(3, np.uint16), Preprocessing())
    for wrong in [(1,), (5, 5), (-1, 5)]:
        with pytest.raises(ValueError, match='two different depths'):
            Preprocessing(depth_range=wrong)


def test_missing_range_names_the_depths_of_the_videos():
    frames = np.linspace(700, 300, 4 * 10 * 10).round().astype(np.uint16).reshape(4, 10, 10)
    frames[0, 0, 0] = 0

    def open_depth(_):
        return Recording({'depth': ArrayReader(frames, 10, kind='depth')})

    said = describe_depths(open_depth, 3)
    assert 'preprocessing.depth_range=695,304' in said


def recording(depth, rgb_shape=SHAPE, **keywords):
    rgb = np.repeat(depths(np.uint8, rgb_shape)[..., None], 3, axis=-1)
    return Recording(
        {
            'rgb': ArrayReader(rgb, 10, 'rgb.mp4'),
            'depth': ArrayReader(depth, 10, 'depth.mkv', kind='depth'),
        },
        **keywords,
    )


@pytest.mark.parametrize('num_views', [1, 3])
def test_depth_and_rgb_are_cut_alike(num_views):
    depth = depths(np.uint8)
    spec = Preprocessing(num_frames=2, frame_stride=1, short_side=22, crop_size=16)
    clips = read_view(recording(depth), spec, view=0, num_views=num_views, num_crops=3)
    assert clips['rgb'].shape == (3, 2, 16, 16, 3)
    np.testing.assert_array_equal(clips['rgb'][..., :1], clips['depth'])


def test_depth_of_another_length_is_an_error_unless_it_is_stretched():
    with pytest.raises(VideoError, match=r'depth.mkv: has 4 frames, but rgb.mp4 has 5'):
        recording(depths()[:4])
    frames = np.arange(10, dtype=np.uint16)[:, None, None] * np.ones((1, 22, 30), np.uint16)
    found = recording(frames, is_stretched=True).read([0, 2, 4])['depth']
    assert found[:, 0, 0, 0].tolist() == [1, 5, 9]  # the middles of the same parts


def test_depth_of_another_size_is_an_error_unless_it_is_stretched():
    small = depths(shape=(5, 11, 15))
    with pytest.raises(VideoError, match=r'depth.mkv: has frames of 11 x 15 .* has 22 x 30'):
        recording(small).read([0])
    found = recording(small, is_stretched=True).read([0, 3])['depth']
    np.testing.assert_array_equal(found[..., 0], small[[0, 3]].repeat(2, 1).repeat(2, 2))


def test_written_depth_is_read_back(tmp_path):
    frames = depths(shape=(3, 16, 24))
    write_video(tmp_path / 'depth.mkv', frames)
    np.testing.assert_array_equal(read_all(tmp_path / 'depth.mkv'), frames)
