import functools

import av
import numpy as np
import pytest

from vivit_jax.video.array_reader import ArrayReader
from vivit_jax.video.clips import frames_to_clip, read_view
from vivit_jax.video.crops import view_crops
from vivit_jax.video.frame_reader import VideoError
from vivit_jax.video.image_reader import open_frames
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.video.video_reader import VideoReader

SPEC = Preprocessing(num_frames=4, frame_stride=2, short_side=64, crop_size=48)


@pytest.fixture(scope='module')
def path(synthetic_folder):
    return synthetic_folder / 'train' / '00000.mp4'  # 10 frames of 32 x 40


@pytest.fixture(scope='module')
def frames(path):
    with VideoReader(path) as video:
        return video.read(range(10))


def test_array_of_a_video_gives_the_clip_of_its_file(path, frames):
    spec = Preprocessing(num_frames=4, frame_stride=2, short_side=32, crop_size=24)
    with VideoReader(path) as video:
        expected = read_view(video, spec)[0]
    np.testing.assert_array_equal(frames_to_clip(frames, spec), expected)
    np.testing.assert_array_equal(frames_to_clip(list(frames), spec), expected)
    top, left = (32 - 24) // 2, (40 - 24) // 2
    assert expected.shape == (4, 24, 24, 3)
    middle = frames[[1, 3, 5, 7], top : top + 24, left : left + 24]
    np.testing.assert_array_equal(frames_to_clip(frames, spec), middle)


@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic', 'area'])
def test_resized_array_gives_the_clip_of_lossless_images(tmp_path, frames, interpolation):
    for number, pixels in enumerate(frames):
        with av.open(str(tmp_path / f'{number:05}.png'), 'w', format='image2') as container:
            stream = container.add_stream('png')
            stream.height, stream.width, stream.pix_fmt = 32, 40, 'rgb24'
            frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
            container.mux([*stream.encode(frame), *stream.encode(None)])
    crops = functools.partial(view_crops, spec=SPEC, num_crops=3)
    with open_frames(tmp_path) as images, ArrayReader(frames, 25) as video:
        for reader in (images, video):
            assert len(reader) == 10
        np.testing.assert_array_equal(video.timestamps_sec, images.timestamps_sec)
        np.testing.assert_array_equal(
            video.read([7, 0, 7], crops, interpolation),
            images.read([7, 0, 7], crops, interpolation),
        )


def test_resized_array_is_near_the_clip_of_its_file(path, frames):
    with VideoReader(path) as video:
        expected = read_view(video, SPEC)[0]
    assert np.abs(frames_to_clip(frames, SPEC).astype(int) - expected).mean() < 4


@pytest.mark.parametrize(
    ('frames', 'message'),
    [
        (np.zeros((0, 8, 8, 3), np.uint8), 'array: has no frames'),
        (np.zeros((2, 8, 8, 3)), r'a frame is float64 \[8, 8, 3\], but must be uint8 \[h w 3\]'),
        (np.zeros((2, 8, 8), np.uint8), r'a frame is uint8 \[8, 8\]'),
        (np.zeros((2, 3, 8, 8), np.uint8), r'a frame is uint8 \[3, 8, 8\]'),
        (['a.mp4'], r'a frame is str \[\]'),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)], 'of different sizes'),
    ],
)
def test_other_arrays_are_refused(frames, message):
    with pytest.raises(VideoError, match=message):
        frames_to_clip(frames, SPEC)


@pytest.mark.parametrize('fps', [0, -1, float('nan'), float('inf')])
def test_frame_rate_is_positive(frames, fps):
    with pytest.raises(VideoError, match='must be a positive number of frames per second'):
        ArrayReader(frames, fps)
