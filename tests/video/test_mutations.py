"""Damaged files of many formats: good frames or a VideoError, never anything else."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest

from vivit_jax.video.crops import view_crops
from vivit_jax.video.frame_reader import VideoError
from vivit_jax.video.image_reader import ImageReader
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.video.video_reader import VideoReader

SPEC = Preprocessing(short_side=16, crop_size=12)
MUTATIONS = 25
CONTAINERS = [  # FFmpeg's names of the container, the codec and its pixels
    ('mp4', 'libx264', 'yuv420p'),
    ('mov', 'mpeg4', 'yuv420p'),
    ('3gp', 'mpeg4', 'yuv420p'),
    ('matroska', 'ffv1', 'gray16le'),
    ('webm', 'libvpx', 'yuv420p'),
    ('avi', 'mjpeg', 'yuvj420p'),
    ('mpegts', 'mpeg2video', 'yuv420p'),
    ('mpeg', 'mpeg1video', 'yuv420p'),
    ('flv', 'flv', 'yuv420p'),
    ('asf', 'mpeg4', 'yuv420p'),
    ('nut', 'libx264', 'yuv420p'),
    ('h264', 'libx264', 'yuv420p'),
    ('gif', 'gif', 'rgb8'),
    ('apng', 'apng', 'rgb24'),
    ('yuv4mpegpipe', 'rawvideo', 'yuv420p'),
]


def _frames(kind, count=5):
    rng = np.random.default_rng(0)
    for shade in rng.integers(0, 200, count):
        pixels = np.full((24, 32, 3), shade, np.uint8) + rng.integers(0, 20, (24, 32, 3), np.uint8)
        yield av.VideoFrame.from_ndarray(pixels, format='rgb24').reformat(format=kind)


def _encode_video(container_format, codec, kind):
    file = io.BytesIO()
    with av.open(file, 'w', container_format) as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width, stream.pix_fmt = 24, 32, kind
        for frame in [*_frames(kind), None]:
            container.mux(stream.encode(frame))
    return file.getvalue()


def _encode_image(codec, kind):
    context = av.CodecContext.create(codec, 'w')
    context.height, context.width, context.pix_fmt = 24, 32, kind
    context.time_base = Fraction(1, 25)
    [frame] = _frames(kind, 1)
    return b''.join(map(bytes, [*context.encode(frame), *context.encode(None)]))


def _mutate(content, rng):
    """One to three kinds of damage, drawn at random; half of it in the first part of the file."""
    content = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        place = int(rng.integers(len(content) if rng.integers(2) else min(len(content), 300)))
        size = int(2 ** rng.uniform(0, 7))
        match rng.integers(6):
            case 0:  # noise
                content[place : place + size] = rng.bytes(len(content[place : place + size]))
            case 1:  # extreme numbers
                content[place : place + 4] = bytes([rng.choice([0, 255, 127])] * 4)
            case 2:
                del content[place : place + size]
            case 3:
                content[place:place] = content[place : place + size]
            case 4:
                content[place] ^= 1 << int(rng.integers(8))
            case 5:
                del content[max(place, 40) :]
    return bytes(content)


def _read(reader, kind):
    """Whether the frames of a reader can be used."""
    with reader as video:
        places = [0, len(video) // 2, len(video) - 1]
        clip = video.read(places, lambda h, w: view_crops(h, w, SPEC, 3), kind=kind)
        assert np.all(np.isfinite(video.timestamps_sec))
        assert clip.shape == (3, 3, 12, 12, 3 if kind == 'rgb' else 1)
        assert clip.dtype == (np.uint8 if kind == 'rgb' else np.uint16)
        video.count_readable()


def _count_read(content, read, seed=0):
    rng, count = np.random.default_rng(seed), 0
    for _ in range(MUTATIONS):
        try:
            read(_mutate(content, rng))
            count += 1
        except VideoError as error:
            assert str(error).startswith('damaged video')
            assert '\n' not in str(error)
    return count


@pytest.mark.parametrize('form', CONTAINERS, ids=lambda form: '-'.join(form[:2]))
def test_damaged_video_is_read_or_refused(form):
    content, kind = _encode_video(*form), 'depth' if form[2] == 'gray16le' else 'rgb'

    def read(content):
        _read(VideoReader(content, name='damaged video'), kind)

    read(content)
    assert _count_read(content, read) < MUTATIONS


@pytest.mark.parametrize(
    ('codec', 'pixels'), [('png', 'gray16be'), ('png', 'rgb24'), ('mjpeg', 'yuvj420p')]
)
def test_damaged_image_is_read_or_refused(codec, pixels):
    image, kind = _encode_image(codec, pixels), 'depth' if pixels == 'gray16be' else 'rgb'

    def read(content):
        _read(ImageReader([image, content, image], 'damaged video'), kind)

    read(image)
    assert _count_read(image, read) < MUTATIONS
