"""Every way to read a video returns exactly the requested frames: each frame shows its number."""

from fractions import Fraction

import av
import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from tensorflow_datasets.proto.tf_example_generated_pb2 import Example

from vivit_jax.annotations.dataset import LabeledVideo
from vivit_jax.batches.array_record import ArrayRecords, find_shards
from vivit_jax.video.open import open_video
from vivit_jax.video.video_reader import VideoReader

NUM_FRAMES = 40
CUT_FRAMES = 5  # that an edit list hides
B_FRAMES = {'g': '12', 'bf': '3', 'b_strategy': '0'}
STEADY_MS = np.arange(0, 100 * NUM_FRAMES, 100).tolist()
UNEVEN_MS = np.cumsum([33, 7, 100, 3] * 10).tolist()
LATE_MS = [5000 + ms for ms in STEADY_MS]
HEVC = {'x265-params': 'keyint=12:bframes=3:log-level=none'}
VIDEOS = {
    'h264.mp4': {'options': B_FRAMES},
    'h264.mkv': {'options': B_FRAMES},
    'h264.avi': {'options': B_FRAMES},
    'h264.ts': {'options': B_FRAMES},
    'only_i.mp4': {'options': {'g': '1'}},
    'no_b.mp4': {'options': {'g': '12', 'bf': '0'}},
    'gop4.mkv': {'options': {**B_FRAMES, 'g': '4'}},
    'gop250.mp4': {'options': {**B_FRAMES, 'g': '250'}},
    'open_gop.mp4': {'options': {**B_FRAMES, 'x264-params': 'open-gop=1'}},
    'layers.mp4': {'options': {'g': '250', 'bf': '7', 'b_strategy': '0', 'b-pyramid': 'normal'}},
    'flat.mp4': {'options': {**B_FRAMES, 'b-pyramid': 'none'}},
    'interlaced.mp4': {'options': {**B_FRAMES, 'x264-params': 'tff=1'}},
    'hevc.mp4': {'codec': 'libx265', 'options': HEVC},
    'hevc.mkv': {'codec': 'libx265', 'options': HEVC},
    'mpeg4.avi': {'codec': 'mpeg4', 'options': {'g': '12'}},
    'mpeg4.mp4': {'codec': 'mpeg4', 'options': {'g': '12', 'bf': '2'}},
    'mjpeg.avi': {'codec': 'mjpeg', 'pix_fmt': 'yuvj420p'},
    'mjpeg.mkv': {'codec': 'mjpeg', 'pix_fmt': 'yuvj420p'},
    'vp8.webm': {'codec': 'libvpx', 'options': {'g': '12', 'cpu-used': '8'}},
    'vp9.webm': {'codec': 'libvpx-vp9', 'options': {'g': '12', 'cpu-used': '8'}},
    'vp9.mkv': {'codec': 'libvpx-vp9', 'options': {'g': '12', 'cpu-used': '8'}},
    'av1.mp4': {'codec': 'libsvtav1', 'options': {'g': '12', 'preset': '8', 'crf': '10'}},
    'uneven.mp4': {'options': B_FRAMES, 'pts_ms': UNEVEN_MS},
    'uneven.mkv': {'options': B_FRAMES, 'pts_ms': UNEVEN_MS},
    'uneven.webm': {'codec': 'libvpx-vp9', 'options': {'cpu-used': '8'}, 'pts_ms': UNEVEN_MS},
    'late.mkv': {'options': B_FRAMES, 'pts_ms': LATE_MS},
    'late.mp4': {'options': B_FRAMES, 'pts_ms': LATE_MS},
    'edit_list.mp4': {'options': B_FRAMES, 'cut': CUT_FRAMES},
}
TIMED = [name for name in VIDEOS if name.endswith(('.mp4', '.mkv', '.webm'))]


def _numbered(count, height=64, width=64):
    """Frames that show their number in binary, as eight blocks too big for a codec to lose."""
    bits = np.arange(count)[:, None] >> np.arange(8) & 1
    blocks = 255 * bits.reshape(count, 2, 4, 1).astype(np.uint8)
    return blocks.repeat(height // 2, 1).repeat(width // 4, 2).repeat(3, 3)


def _numbers(clip):
    blocks = clip.reshape(len(clip), 2, clip.shape[1] // 2, 4, -1).mean((2, 4)) > 127
    return (blocks.reshape(-1, 8) << np.arange(8)).sum(1).tolist()


def _write(
    path,
    frames,
    codec='libx264',
    options=None,
    pts_ms=None,
    rate=10,
    pix_fmt='yuv420p',
    rotation=0,
    cut=0,
):
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        if rotation:
            stream.set_display_rotation(rotation)
        if pts_ms:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i, pixels in enumerate([*frames, None]):
            frame = None if pixels is None else av.VideoFrame.from_ndarray(pixels, format='rgb24')
            if pts_ms and frame:
                frame.pts, frame.time_base = pts_ms[i], Fraction(1, 1000)
            for packet in stream.encode(frame):
                # Frames before time 0 are kept for decoding, and an edit list hides them.
                early = int(Fraction(cut, rate) / packet.time_base)
                packet.pts, packet.dts = packet.pts - early, packet.dts - early
                container.mux(packet)
    return path


def _decode_all(path):
    with av.open(str(path)) as container:
        frames = container.decode(container.streams.best('video'))
        return np.stack([frame.to_ndarray(format='rgb24') for frame in frames])


def _shown(name):
    """Numbers and times in seconds of a video's frames."""
    first = VIDEOS[name].get('cut', 0)
    times = np.array(VIDEOS[name].get('pts_ms', STEADY_MS)) / 1000
    return list(range(first, NUM_FRAMES)), times[first:] - first / 10


@pytest.fixture(scope='module')
def videos(tmp_path_factory):
    """Paths by name, without the videos for which FFmpeg has no encoder."""
    folder = tmp_path_factory.mktemp('videos')
    return {
        name: _write(folder / name, _numbered(NUM_FRAMES), **options)
        for name, options in VIDEOS.items()
        if options.get('codec', 'libx264') in av.codecs_available
    }


@pytest.fixture(params=VIDEOS)
def video(request, videos):
    """Name and path of each video."""
    if request.param not in videos:
        pytest.skip(f'FFmpeg has no encoder {VIDEOS[request.param]["codec"]}')
    return request.param, videos[request.param]


@pytest.mark.parametrize(
    'name', ['h264.mp4', 'h264.mkv', 'open_gop.mp4', 'mpeg4.mp4', 'gop4.mkv', 'hevc.mp4']
)
def test_videos_reorder_frames_of_several_gops(videos, name):
    # Without this, the other tests would mean little.
    with av.open(str(videos[name])) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    times = [packet.pts for packet in packets]
    assert times != sorted(times)
    assert sum(packet.is_keyframe for packet in packets) >= 4


def test_all_frames_are_read_in_order(video):
    name, path = video
    numbers, times = _shown(name)
    with VideoReader(path) as reader:
        assert len(reader) == len(numbers)
        clip = reader.read(range(len(reader)))
        if name in TIMED:
            np.testing.assert_allclose(reader.timestamps_sec, times, atol=1e-6)
    assert clip.dtype == np.uint8
    assert _numbers(clip) == numbers
    np.testing.assert_array_equal(clip, _decode_all(path))


def test_any_frames_are_read_alike(video):
    name, path = video
    numbers, _ = _shown(name)
    last, expected = len(numbers) - 1, _decode_all(path)
    rng = np.random.default_rng(0)
    lists = [
        range(last, -1, -1),
        [last],
        [0],
        [23],
        [last, 0],
        [5, 0, 5, last, 20, 20, 11],
        *[range(start, last, stride) for start in (0, 1, 13) for stride in (2, 3, 7)],
        *[rng.integers(last + 1, size=size).tolist() for size in (1, 2, 3, 5, 8)],
    ]
    with VideoReader(path) as reader:  # one for all, so that reads could disturb each other
        for indices in lists:
            clip = reader.read(indices)
            assert _numbers(clip) == [numbers[i] for i in indices]
            np.testing.assert_array_equal(clip, expected[list(indices)])


def test_clips_live_on_after_closing(video):
    name, path = video
    numbers, _ = _shown(name)
    with VideoReader(path) as reader:
        clips = [reader.read(indices) for indices in ([30, 31], [2], [32])]
    assert [_numbers(clip) for clip in clips] == [numbers[30:32], numbers[2:3], numbers[32:33]]


@pytest.mark.parametrize(
    ('start', 'end'),
    [(None, 0.55), (0.55, None), (1.151, 2.06), (1.05, 1.16), (0, 100), (0.7001, 0.8334)],
)
@pytest.mark.parametrize('name', [*TIMED, 'mpeg4.avi', 'mjpeg.avi'])
def test_segment_holds_frames_of_its_time(videos, name, start, end):
    if name not in videos:
        pytest.skip('no encoder')
    numbers, times = _shown(name)
    offset = 5 if name.startswith('late') else 0
    start, end = (None if sec is None else offset + sec for sec in (start, end))
    low, high = -1 if start is None else start, 1000 if end is None else end
    part = [i for i, time in enumerate(times) if low <= time < high]
    expected = [numbers[i] for i in part]
    with VideoReader(videos[name], start_sec=start, end_sec=end) as reader:
        assert len(reader) == len(expected)
        assert _numbers(reader.read(range(len(reader)))) == expected
        assert _numbers(reader.read([len(reader) - 1, 0])) == [expected[-1], expected[0]]
        assert _numbers(reader.read(range(0, len(reader), 2))) == expected[::2]
        np.testing.assert_allclose(reader.timestamps_sec, times[part], atol=1e-6)


@pytest.mark.parametrize('name', TIMED)
def test_segment_can_start_at_every_frame(videos, name):
    if name not in videos:
        pytest.skip('no encoder')
    numbers, times = _shown(name)
    for first in range(len(numbers) - 2):
        start, end = times[first] - 0.001, times[first + 2] + 0.001
        with VideoReader(videos[name], start_sec=start, end_sec=end) as reader:
            assert _numbers(reader.read(range(len(reader)))) == numbers[first : first + 3]


def test_segment_bounds_hit_frames_exactly(tmp_path):
    path = _write(tmp_path / 'a.mp4', _numbered(NUM_FRAMES), rate=25)
    for first in range(1, NUM_FRAMES):
        with VideoReader(path, start_sec=first / 25) as reader:
            assert len(reader) == NUM_FRAMES - first
        with VideoReader(path, end_sec=first / 25) as reader:
            assert len(reader) == first


@pytest.mark.parametrize('indices', [[39], [2, 39], range(0, 40, 3)], ids=['last', 'two', 'third'])
def test_last_frame_that_decodes_stands_for_missing(videos, monkeypatch, indices):
    # A decoder that keeps the last frame back. The one before is among those it may leave out.
    decode = VideoReader._decode_on
    monkeypatch.setattr(VideoReader, '_decode_on', lambda *args: iter(list(decode(*args))[:-1]))
    with VideoReader(videos['h264.mp4']) as reader:
        assert _numbers(reader.read(indices)) == [min(i, 38) for i in indices]


@pytest.mark.parametrize('rotation', [90, 180, -90])
def test_rotated_videos_show_the_same_frames(tmp_path, rotation):
    path = _write(tmp_path / 'a.mp4', _numbered(NUM_FRAMES), options=B_FRAMES, rotation=rotation)
    with VideoReader(path) as reader:
        clip = reader.read([30, 3, 17])
    assert _numbers(np.rot90(clip, -rotation // 90, axes=(1, 2))) == [30, 3, 17]


def test_one_frame_video_is_read(tmp_path):
    path = _write(tmp_path / 'a.mp4', _numbered(6)[5:])
    with VideoReader(path) as reader:
        assert len(reader) == 1
        assert _numbers(reader.read([0, 0, 0])) == [5, 5, 5]


def test_bytes_and_records_give_the_same_frames(videos, tmp_path):
    writer = ArrayRecordWriter(str(tmp_path / 'v-test.array_record-00000-of-00001'), 'group_size:1')
    for name, path in videos.items():
        example = Example()
        example.features.feature['video'].bytes_list.value.append(path.read_bytes())
        example.features.feature['id'].bytes_list.value.append(name.encode())
        writer.write(example.SerializeToString())
    writer.close()
    rows = [LabeledVideo(name, 0) for name in videos]
    source = ArrayRecords(rows, find_shards(tmp_path, 'test'))
    for index, (name, path) in enumerate(videos.items()):
        numbers, _ = _shown(name)
        with source.open(index) as record, open_video(path.read_bytes()) as memory:
            for reader in (record.main, memory):
                assert len(reader) == len(numbers)
                for indices in (range(len(numbers)), [33, 2, 2, 17], range(1, 30, 3)):
                    expected = [numbers[i] for i in indices]
                    assert _numbers(reader.read(indices)) == expected, name


@pytest.mark.parametrize('suffix', ['jpg', 'png'])
def test_frame_folders_give_frames_asked_for(tmp_path, suffix):
    for number, pixels in enumerate(_numbered(NUM_FRAMES)):
        Image.fromarray(pixels).save(tmp_path / f'img_{number + 1:05d}.{suffix}')
    with open_video(tmp_path) as reader:
        assert len(reader) == NUM_FRAMES
        for indices in (range(40), range(39, -1, -1), [5, 0, 5, 39, 20, 20, 11]):
            assert _numbers(reader.read(indices)) == list(indices)
    with open_video(tmp_path, start_frame=7, num_frames=3) as reader:
        assert _numbers(reader.read(range(len(reader)))) == [7, 8, 9]
