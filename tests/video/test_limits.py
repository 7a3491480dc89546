import resource
import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from vivit_jax.errors import UserError
from vivit_jax.video import frame_reader
from vivit_jax.video.array_reader import ArrayReader
from vivit_jax.video.clips import read_view
from vivit_jax.video.crops import Crops, view_crops
from vivit_jax.video.frame_reader import VideoError
from vivit_jax.video.limits import Limits
from vivit_jax.video.open import open_video
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.video.stream import open_stream
from vivit_jax.video.synthetic import write_video
from vivit_jax.video.video_reader import VideoReader

# Of 11 frames of 40 x 32 pixels, 10 a second.
BEYOND = [
    ('max_pixels', 1279, 'its frames have 1,280 pixels'),
    ('max_side', 39, 'a side of its frames has 40 pixels'),
    ('max_aspect', 1.24, 'the longer side of its frames is 1.25 times the shorter side'),
    ('max_frames', 10, 'it has 11 frames, or more'),
    ('max_sec', 0.99, 'it lasts 1 s'),
]


def _encode(codec, frames, **options):
    """Packets of frames uint8 [t h w 3]."""
    context = av.CodecContext.create(codec, 'w')
    context.height, context.width = frames.shape[1:3]
    context.pix_fmt = {'png': 'rgb24', 'mjpeg': 'yuvj420p'}.get(codec, 'yuv420p')
    context.time_base, context.options = Fraction(1, 10), options
    packets = []
    for pixels in frames:
        frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
        packets += context.encode(frame.reformat(format=context.pix_fmt))
    return [bytes(packet) for packet in [*packets, *context.encode(None)]]


def _grey(count, height, width):
    return np.full((count, height, width, 3), 90, np.uint8)


@pytest.fixture
def kept(tmp_path):
    """A video in every form in which videos are kept."""
    frames = _grey(11, 32, 40)
    write_video(tmp_path / 'a.mp4', frames, rate=10)
    for codec, name in (('png', 'png'), ('mjpeg', 'jpg')):
        (tmp_path / name).mkdir()
        for number, image in enumerate(_encode(codec, frames)):
            (tmp_path / name / f'{number}.{name}').write_bytes(image)
    forms = {name: tmp_path / name for name in ('a.mp4', 'png', 'jpg')}
    return forms | {'bytes': (tmp_path / 'a.mp4').read_bytes()}


@pytest.mark.parametrize(('key', 'limit', 'words'), BEYOND)
def test_video_beyond_a_limit_names_it_its_value_and_the_key(kept, key, limit, words, monkeypatch):
    limits = Limits(**{key: max(limit, 1)})
    if key == 'max_sec':  # at least 1, which these videos last
        object.__setattr__(limits, key, limit)
    for form in ('a.mp4', 'bytes'):
        monkeypatch.setattr(VideoReader, '_decode', None)  # the header tells
        with pytest.raises(VideoError) as caught:
            open_video(kept[form], limits=limits)
        assert words in str(caught.value)
        assert f'but data.limits.{key} allows {limit:,}: raise it' in str(caught.value)
    for form in ('png', 'jpg'):
        if key == 'max_sec':
            object.__setattr__(limits, key, 0.3)  # images come 25 times a second
            words = 'it lasts 0 s'
        for kind in ('rgb', 'depth'):
            with (
                pytest.raises(VideoError, match=words),
                open_video(kept[form], limits=limits) as video,
            ):
                video.read([0], kind=kind)


def test_video_at_the_limits_is_read(kept):
    limits = Limits(max_pixels=1280, max_side=40, max_aspect=1.25, max_frames=11, max_sec=1)
    for form in kept.values():
        with open_video(form, limits=limits) as video:
            assert video.read([0, 10]).shape == (2, 32, 40, 3)
    arrays = ArrayReader(_grey(11, 32, 40), 10, limits=limits)
    assert arrays.read([10]).shape == (1, 32, 40, 3)
    with pytest.raises(VideoError, match='12 frames'):
        ArrayReader(_grey(12, 32, 40), 100, limits=limits)
    frames = open_stream(str(kept['a.mp4']), limits).frames
    assert len(list(frames)) == 11
    with pytest.raises(VideoError, match='max_side'):
        list(open_stream(str(kept['a.mp4']), Limits(max_side=39)).frames)


def test_defaults_let_films_and_days_pass():
    limits = Limits()
    for width, height in ((8192, 4320), (7680, 4320), (4320, 7680), (1, 1), (11520, 360)):
        assert limits.describe_size(height, width) is None
    for hours, fps in ((3, 120), (24, 30)):
        assert limits.describe_length(3600 * hours * fps, 3600 * hours) is None
    assert 'max_side' in limits.describe_size(16385, 2000)
    with pytest.raises(UserError, match=r'^data\.limits\.max_aspect=0\.5 must be at least 1'):
        Limits(max_aspect=0.5)
    with pytest.raises(UserError, match=r'max_sec=nan must'):
        Limits(max_sec=float('nan'))


@pytest.mark.parametrize('limits', [Limits(max_pixels=10_000), Limits(max_side=100)])
def test_frames_that_grow_are_refused(tmp_path, limits):
    """The header has the size of the first frames only."""
    packets = [*_encode('libx264', _grey(5, 64, 64)), *_encode('libx264', _grey(5, 160, 160))]
    (tmp_path / 'a.h264').write_bytes(b''.join(packets))
    with VideoReader(tmp_path / 'a.h264', limits=limits) as video:
        assert video.read([0, 2]).shape == (2, 64, 64, 3)
        with pytest.raises(VideoError, match=r'a\.h264: .* data\.limits\.max_(pixels|side) allows'):
            video.read([0, 9])


@pytest.mark.parametrize('form', ['png', 'jpg'])
def test_image_that_announces_many_pixels_is_refused_by_its_header(kept, form):
    path = kept[form] / f'0.{form}'
    image = bytearray(path.read_bytes())
    if form == 'png':
        place, size = 16, struct.pack('>II', 16_000, 16_000)
    else:
        place, size = image.index(b'\xff\xc0') + 5, struct.pack('>HH', 16_000, 16_000)
    image[place : place + len(size)] = size
    path.write_bytes(image + bytes(2**20))  # FFmpeg knows that fewer bytes are too few
    with open_video(kept[form]) as video:
        assert video.read([3]).shape == (1, 32, 40, 3)
        with pytest.raises(VideoError, match=rf'0\.{form}: its frames have 256,000,000 pixels'):
            video.read([0])


def test_index_of_millions_of_frames_in_a_tiny_file_takes_no_memory(kept):
    count, content = 50_000_000, kept['bytes']
    tables = {
        b'stts': struct.pack('>IIII', 0, 1, count, 1024),
        b'stsz': struct.pack('>III', 0, 1, count),
        b'stsc': struct.pack('>IIIII', 0, 1, 1, count, 1),
        b'stco': struct.pack('>III', 0, 1, 48),
    }
    grown = 0
    for name in (*tables, b'ctts', b'stss'):
        place = content.find(name) - 4
        if place < 0:
            continue
        size = int.from_bytes(content[place : place + 4], 'big')
        body = tables.get(name)
        box = b'' if body is None else struct.pack('>I4s', len(body) + 8, name) + body
        content = content[:place] + box + content[place + size :]
        grown += len(box) - size
    content = bytearray(content)
    for name in (b'moov', b'trak', b'mdia', b'minf', b'stbl'):
        place = content.index(name) - 4
        size = int.from_bytes(content[place : place + 4], 'big') + grown
        content[place : place + 4] = struct.pack('>I', size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(VideoError):
        VideoReader(bytes(content))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 2**20  # KB; else 1.8 GB


@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic', 'area'])
@pytest.mark.parametrize(
    ('size', 'resized'),
    [
        ((2, 640), (24, 7680)),
        ((640, 6), (2560, 24)),
        ((60, 4800), (30, 2400)),
        ((90, 70), (27, 21)),
    ],
)
def test_box_cut_first_is_that_of_the_resized_frame(monkeypatch, size, resized, interpolation):
    wave = 120 + 100 * np.sin(np.arange(max(size)) / 9)
    pixels = np.broadcast_to(wave[: size[0], None] if size[0] > size[1] else wave[: size[1]], size)
    frames = np.repeat(np.round(pixels).astype(np.uint8)[None, :, :, None], 3, axis=-1)
    room = [whole - 20 for whole in resized]
    corners = ((0, 0), (room[0], room[1]), (room[0] // 3, room[1] // 3))
    crops = Crops(*resized, corners, (20, 20))
    video = ArrayReader(frames, 10, limits=Limits(max_aspect=1000))
    monkeypatch.setattr(frame_reader, '_MOST_UNUSED', 10**9)
    whole = video.read([0], lambda *_: crops, interpolation)
    monkeypatch.setattr(frame_reader, '_MOST_UNUSED', 0)
    first = video.read([0], lambda *_: crops, interpolation)
    assert first.shape == whole.shape == (3, 1, 20, 20, 3)
    assert np.ptp(whole) > 50
    assert np.abs(first.astype(int) - whole).mean() < 3


def test_frame_is_not_resized_as_a_whole_where_boxes_are_small(tmp_path):
    write_video(tmp_path / 'a.mp4', _grey(3, 2, 4096))
    spec = Preprocessing(num_frames=2)
    assert view_crops(2, 4096, spec, 1).width == 2**19  # 400 MB a frame, which FFmpeg may not take
    with VideoReader(tmp_path / 'a.mp4', limits=Limits(max_aspect=2048)) as video:
        clip = read_view(video, spec, num_crops=3)
    assert clip.shape == (3, 2, 224, 224, 3)
    assert np.abs(clip.astype(int) - 90).max() < 4
