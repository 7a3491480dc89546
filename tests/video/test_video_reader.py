from pathlib import Path

import av
import numpy as np
import pytest

from vivit_jax.video.crops import Crops
from vivit_jax.video.frame_reader import FrameReader
from vivit_jax.video.synthetic import write_video
from vivit_jax.video.video_reader import VideoReader

NUM_FRAMES = 40


def _shades(count, height=32, width=64):
    """Frames of an even grey, each lighter than the one before."""
    shades = np.linspace(30, 220, count).astype(np.uint8)
    return np.broadcast_to(shades[:, None, None, None], (count, height, width, 3))


def _decode_all(path):
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format='rgb24') for f in container.decode(video=0)])


def _turn(path, rotation):
    """Copies a video with a note on how far to turn it."""
    turned = Path(path).with_suffix('.turned.mp4')
    with av.open(str(path)) as source, av.open(str(turned), 'w') as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(rotation)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    return turned


@pytest.mark.parametrize(
    ('rotation', 'corner'), [(0, (0, 0)), (90, (-1, 0)), (180, (-1, -1)), (-90, (0, -1))]
)
def test_rotated_video_comes_out_upright(tmp_path, rotation, corner):
    # The picture's bright top left corner goes where a counter-clockwise turn takes it.
    frames = np.zeros((5, 32, 64, 3), np.uint8)
    frames[:, :16, :16] = 255
    write_video(tmp_path / 'a.mp4', frames)
    path = _turn(tmp_path / 'a.mp4', rotation) if rotation else tmp_path / 'a.mp4'
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


# Sizes that no row of a decoder's memory fits without padding; the first is the video's own.
@pytest.mark.parametrize(('height', 'width'), [(32, 40), (27, 51), (45, 101), (64, 80)])
@pytest.mark.parametrize('interpolation', ['bilinear', 'bicubic', 'area'])
def test_crops_are_boxes_of_resized_frame(synthetic_folder, height, width, interpolation):
    path = synthetic_folder / 'train' / '00000.mp4'
    corners = ((0, 0), (height - 20, width - 24), (3, 5))
    with VideoReader(path) as video:
        crops = video.read(
            [3, 8], lambda *_: Crops(height, width, corners, (20, 24)), interpolation
        )
    assert crops.shape == (3, 2, 20, 24, 3)
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    for i, number in enumerate([3, 8]):
        resized = frames[number].to_ndarray(
            width=width,
            height=height,
            format='rgb24' if width == 40 else 'gbrp',
            interpolation=interpolation.upper(),
        )
        for crop, (top, left) in zip(crops[:, i], corners, strict=True):
            np.testing.assert_array_equal(crop, resized[top : top + 20, left : left + 24])


@pytest.mark.parametrize(('height', 'width'), [(64, 80), (64, 81), (24, 30), (25, 31)])
def test_colors_of_resized_frames_follow_bt601(synthetic_folder, height, width):
    path = synthetic_folder / 'train' / '00001.mp4'
    with VideoReader(path) as video:
        whole = Crops(height, width, ((0, 0),), (height, width))
        ours = video.read([5], lambda *_: whole)[0, 0]
    with av.open(str(path)) as container:
        frame = list(container.decode(video=0))[5]
    planes = frame.to_ndarray(
        width=width, height=height, format='yuv444p', interpolation='BILINEAR'
    ).astype(float)
    # ITU-R BT.601: luma in 16 … 235, color differences in 16 … 240.
    y, u, v = (planes - [[[16]], [[128]], [[128]]]) / [[[219]], [[224]], [[224]]]
    red, blue = y + 1.402 * v, y + 1.772 * u
    green = (y - 0.299 * red - 0.114 * blue) / 0.587
    expected = 255 * np.stack([red, green, blue], axis=-1).clip(0, 1)
    assert np.abs(ours - expected).mean() < 1
    assert abs((ours - expected).mean()) < 0.5


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
        frames = [av.VideoFrame.from_ndarray(p, format='rgb24') for p in _shades(NUM_FRAMES)]
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


a, b, c = (av.VideoFrame(2, 2) for _ in 'abc')


class RestartedReader(FrameReader):
    """Four frames; the decoder starts over after the second, and never gives the last."""

    name = 'restarted'
    timestamps_sec = np.arange(4) / 10

    def __len__(self):
        return 4

    def close(self):
        pass

    def _decode(self, places):
        yield from zip([0, 1, 0, 1, 2], [a, b, a, b, c], strict=True)


def test_frames_come_once_and_the_last_stands_for_missing():
    with RestartedReader() as video:
        assert list(video.frames()) == [(0, a), (0.1, b), (0.2, c), (0.3, c)]
        assert video.count_readable() == 4
