from fractions import Fraction

import av
import numpy as np
import pytest

from vivit_jax.data.decode import VideoReader
from vivit_jax.data.transforms import Crops

NUM_FRAMES = 40
B_FRAMES = {'g': '12', 'bf': '3', 'b_strategy': '0'}
UNEVEN_MS = np.cumsum([33, 7, 100, 3] * 10).tolist()
VIDEOS = {
    'h264.mp4': {'options': B_FRAMES},
    'h264.mkv': {'options': B_FRAMES},
    'vp9.mkv': {'codec': 'libvpx-vp9', 'options': {'g': '12', 'cpu-used': '8'}},
    'mpeg4.avi': {'codec': 'mpeg4', 'options': {'g': '12'}},
    'h264.avi': {'options': B_FRAMES},
    'open_gop.mp4': {'options': {**B_FRAMES, 'x264-params': 'open-gop=1'}},
    'mpeg4.mp4': {'codec': 'mpeg4', 'options': {'g': '12', 'bf': '2'}},
    'uneven.mp4': {'options': B_FRAMES, 'pts_ms': UNEVEN_MS},
    'late.mkv': {'options': B_FRAMES, 'pts_ms': [5000 + 100 * i for i in range(NUM_FRAMES)]},
}


def _numbered(count, height=32, width=64):
    """Frames that show their number in binary, as eight blocks too big for a codec to lose."""
    bits = np.arange(count)[:, None] >> np.arange(8) & 1
    blocks = 255 * bits.reshape(count, 2, 4, 1).astype(np.uint8)
    return blocks.repeat(height // 2, 1).repeat(width // 4, 2).repeat(3, 3)


def _numbers(clip):
    blocks = clip.reshape(len(clip), 2, clip.shape[1] // 2, 4, -1).mean((2, 4)) > 127
    return (blocks.reshape(-1, 8) << np.arange(8)).sum(1).tolist()


def _write(path, frames, codec='libx264', options=None, pts_ms=None, rotation=0, rate=10):
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = 'yuv420p'
        if rotation:
            stream.set_display_rotation(rotation)
        if pts_ms:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
            if pts_ms:
                frame.pts, frame.time_base = pts_ms[i], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _decode_all(path):
    with av.open(str(path)) as container:
        stream = container.streams.best('video')
        return np.stack([f.to_ndarray(format='rgb24') for f in container.decode(stream)])


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp('videos')
    for name, options in VIDEOS.items():
        _write(folder / name, _numbered(NUM_FRAMES), **options)
    return folder


@pytest.mark.parametrize('name', ['h264.mp4', 'h264.mkv', 'open_gop.mp4', 'mpeg4.mp4'])
def test_videos_reorder_frames_of_several_gops(videos, name):
    # The other tests mean little without.
    with av.open(str(videos / name)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    times = [packet.pts for packet in packets]
    assert times != sorted(times)
    assert sum(packet.is_keyframe for packet in packets) >= 4


@pytest.mark.parametrize(
    'indices',
    [range(40), range(39, -1, -1), range(1, 40, 7), [39], [0], [23], [5, 0, 5, 39, 20, 20, 11]],
    ids=['all', 'backwards', 'stride', 'last', 'first', 'one', 'mixed'],
)
@pytest.mark.parametrize('name', VIDEOS)
def test_read_gives_frames_asked_for(videos, name, indices):
    with VideoReader(videos / name) as video:
        assert len(video) == NUM_FRAMES
        clip = video.read(indices)
    assert clip.dtype == np.uint8
    assert _numbers(clip) == list(indices)
    np.testing.assert_array_equal(clip, _decode_all(videos / name)[list(indices)])


@pytest.mark.parametrize('name', VIDEOS)
def test_repeated_reads_give_frames_asked_for(videos, name):
    with VideoReader(videos / name) as video:
        clips = [video.read(indices) for indices in ([30, 31], [2], [32], [39], [39, 0])]
    # Checked after closing: clips must not live in the decoder's memory.
    assert [_numbers(clip) for clip in clips] == [[30, 31], [2], [32], [39], [39, 0]]


@pytest.mark.parametrize(
    ('name', 'times'),
    [
        ('h264.mp4', np.arange(NUM_FRAMES) / 10),
        ('late.mkv', 5 + np.arange(NUM_FRAMES) / 10),
        ('uneven.mp4', np.array(UNEVEN_MS) / 1000),
    ],
)
def test_timestamps_are_presentation_times(videos, name, times):
    with VideoReader(videos / name) as video:
        np.testing.assert_allclose(video.timestamps_sec, times, atol=1e-6)


@pytest.mark.parametrize(
    ('start', 'end'),
    [(None, 0.55), (0.55, None), (1.151, 2.06), (1.05, 1.16), (0, 100), (0.7001, 0.8334)],
)
@pytest.mark.parametrize('name', ['h264.mp4', 'h264.mkv', 'mpeg4.avi', 'uneven.mp4', 'late.mkv'])
def test_segment_holds_frames_of_its_time(videos, name, start, end):
    times = np.array(VIDEOS[name].get('pts_ms') or 100 * np.arange(NUM_FRAMES)) / 1000
    offset = 5 if name == 'late.mkv' else 0
    start, end = (None if sec is None else offset + sec for sec in (start, end))
    low, high = -1 if start is None else start, 1000 if end is None else end
    expected = [i for i, time in enumerate(times) if low <= time < high]
    with VideoReader(videos / name, start_sec=start, end_sec=end) as video:
        assert len(video) == len(expected)
        assert _numbers(video.read(range(len(video)))) == expected
        assert _numbers(video.read([len(video) - 1, 0])) == [expected[-1], expected[0]]
        np.testing.assert_allclose(video.timestamps_sec, times[expected], atol=1e-6)


@pytest.mark.parametrize(
    'name',
    [
        'h264.mp4',
        'h264.mkv',
        'open_gop.mp4',
        'mpeg4.mp4',
    ],
)
def test_segment_can_start_at_every_frame(videos, name):
    for first in range(NUM_FRAMES - 2):
        start, end = first / 10 - 0.01, first / 10 + 0.21
        with VideoReader(videos / name, start_sec=start, end_sec=end) as video:
            assert _numbers(video.read(range(len(video)))) == [first, first + 1, first + 2]


def test_segment_bounds_hit_frames_exactly(tmp_path):
    path = _write(tmp_path / 'a.mp4', _numbered(NUM_FRAMES), rate=25)
    for first in range(1, NUM_FRAMES):
        with VideoReader(path, start_sec=first / 25) as video:
            assert len(video) == NUM_FRAMES - first
        with VideoReader(path, end_sec=first / 25) as video:
            assert len(video) == first


@pytest.mark.parametrize(
    ('rotation', 'corner'), [(0, (0, 0)), (90, (-1, 0)), (180, (-1, -1)), (-90, (0, -1))]
)
def test_rotated_video_comes_out_upright(tmp_path, rotation, corner):
    # The picture's bright top left corner goes where a counter-clockwise turn takes it.
    frames = np.zeros((5, 32, 64, 3), np.uint8)
    frames[:, :16, :16] = 255
    path = _write(tmp_path / 'a.mp4', frames, rotation=rotation)
    asked = []

    def corners_of_half_size(height, width):
        asked.append((height, width))
        height, width = height // 2, width // 2
        places = ((0, 0), (0, width - 8), (height - 8, 0), (height - 8, width - 8))
        return Crops(height, width, places, (8, 8))

    with VideoReader(path) as video:
        whole = video.read([4, 0])
        crops = video.read([4, 0], corners_of_half_size)
    upright = (64, 32) if rotation in (90, -90) else (32, 64)
    assert whole.shape == (2, *upright, 3)
    bright = whole.min(axis=(0, 3)) > 200
    assert bright[corner]
    assert bright.sum() == pytest.approx(16 * 16, abs=16)
    assert asked == [upright]
    assert crops.shape == (4, 2, 8, 8, 3)
    is_bright = (crops.mean(axis=(1, 2, 3, 4)) > 200).tolist()
    assert is_bright == [corner == place for place in [(0, 0), (0, -1), (-1, 0), (-1, -1)]]


# Sizes that no row of a decoder's memory fits without padding.
@pytest.mark.parametrize(('height', 'width'), [(32, 64), (27, 51), (45, 101)])
@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic', 'area'])
def test_crops_are_boxes_of_resized_frame(videos, height, width, interpolation):
    corners = ((0, 0), (height - 20, width - 24), (3, 5))
    with VideoReader(videos / 'vp9.mkv') as video:
        crops = video.read(
            [7, 30], lambda *_: Crops(height, width, corners, (20, 24)), interpolation
        )
    assert crops.shape == (3, 2, 20, 24, 3)
    with av.open(str(videos / 'vp9.mkv')) as container:
        frames = list(container.decode(video=0))
    for i, number in enumerate([7, 30]):
        resized = frames[number].to_ndarray(
            width=width, height=height, format='rgb24', interpolation=interpolation.upper()
        )
        for crop, (top, left) in zip(crops[:, i], corners, strict=True):
            np.testing.assert_array_equal(crop, resized[top : top + 20, left : left + 24])


def test_one_frame_video_is_read(tmp_path):
    path = _write(tmp_path / 'a.mp4', _numbered(6)[5:])
    with VideoReader(path) as video:
        assert len(video) == 1
        assert _numbers(video.read([0, 0, 0])) == [5, 5, 5]


@pytest.mark.parametrize(
    'indices',
    [
        range(NUM_FRAMES),
        [0, 39],
        [39],
    ],
    ids=['all', 'first-last', 'last'],
)
def test_last_frame_stands_for_missing(tmp_path, indices):
    # Packets of many an AVI say "as before"; FFmpeg gives no frame for the second of two.
    as_before = b'\x00\x00\x01\xb6' + bytes([0b01_0_1_1001, 0b1_0_011111])
    with av.open(str(tmp_path / 'a.avi'), 'w') as container:
        stream = container.add_stream('mpeg4', rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 64, 'yuv420p'
        frames = [av.VideoFrame.from_ndarray(p, format='rgb24') for p in _numbered(NUM_FRAMES)]
        for frame in [*frames, None]:
            for packet in stream.encode(frame):
                if packet.pts >= 38:
                    pts, packet = packet.pts, av.Packet(as_before)
                    packet.pts = packet.dts = pts
                    packet.time_base, packet.stream = stream.time_base, stream
                container.mux(packet)
    frames = _decode_all(tmp_path / 'a.avi')
    assert len(frames) == 39
    with VideoReader(tmp_path / 'a.avi') as video:
        clip = video.read(indices)
    np.testing.assert_array_equal(clip, frames[np.minimum(indices, 38)])
