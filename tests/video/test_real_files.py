import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from vivit_jax.video.crops import view_crops
from vivit_jax.video.frame_reader import VideoError
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.video.synthetic import write_video
from vivit_jax.video.video_reader import VideoReader


@pytest.fixture
def video_path(synthetic_folder):
    return synthetic_folder / 'train' / '00000.mp4'


def _noise(count, height=32, width=40):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, height, width, 3), np.uint8)


def _write_audio(path, codec='aac'):
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(codec, rate=16000, layout='mono')
        sample_format = stream.codec_context.format.name
        dtype = np.int16 if sample_format == 's16' else np.float32
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1600), dtype), sample_format, 'mono')
        frame.sample_rate = 16000
        container.mux([*stream.encode(frame), *stream.encode()])


def _write_no_frames(path):
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('mpeg4', rate=10)
        stream.height, stream.width, stream.pix_fmt = 32, 64, 'yuv420p'
        container.start_encoding()


def _write_without_index(path):
    # An MP4's index lies at its end, so that a broken download has none.
    write_video(path, _noise(20))
    path.write_bytes(path.read_bytes()[:-1000])


@pytest.mark.parametrize(
    ('name', 'make', 'reason'),
    [
        ('missing.mp4', lambda path: None, 'no such file'),
        ('folder.mp4', Path.mkdir, 'is a folder'),
        ('empty.mp4', Path.touch, 'the file is empty (0 bytes)'),
        ('text.mp4', lambda path: path.write_text('hello ' * 99), 'not a video file, or damaged'),
        ('cut.mp4', _write_without_index, 'not a video file, or damaged'),
        ('sound.wav', lambda path: _write_audio(path, 'pcm_s16le'), '(it holds: audio)'),
        ('sound.mp4', _write_audio, 'has no video stream (it holds: audio)'),
        ('header.avi', _write_no_frames, 'has no frames'),
    ],
)
def test_unusable_file_raises_its_name_and_reason(tmp_path, name, make, reason):
    make(tmp_path / name)
    with pytest.raises(VideoError) as caught:
        VideoReader(tmp_path / name)
    assert str(caught.value).startswith(f'{tmp_path / name}: ')
    assert reason in str(caught.value)


@pytest.mark.parametrize('content', [b'', b'hello ' * 99], ids=['empty', 'text'])
def test_unusable_bytes_raise_the_name_given(content):
    with pytest.raises(VideoError, match=r'^record 7: not a video file, or damaged'):
        VideoReader(content, name='record 7')


@pytest.mark.parametrize('start', [10.0, 1e6])
@pytest.mark.parametrize('name', ['a.mp4', 'a.mkv', 'a.avi'])
def test_segment_outside_raises_where_frames_lie(tmp_path, name, start):
    write_video(tmp_path / name, _noise(24))
    for bounds in ({'start_sec': start}, {'start_sec': start, 'end_sec': start + 2}):
        with pytest.raises(
            VideoError, match=rf'{name}: has no frame from {start}.*lie from \d.* to [12]\.'
        ):
            VideoReader(tmp_path / name, **bounds)


@pytest.mark.parametrize(
    'start',
    [
        float('nan'),
        float('inf'),
        1e30,
    ],
)
def test_absurd_start_raises_the_file(video_path, start):
    with pytest.raises(VideoError, match=r'00000\.mp4: '):
        VideoReader(video_path, start_sec=start)


@pytest.mark.parametrize('index', [-1, 10])
def test_absent_frame_is_an_index_error(video_path, index):
    with VideoReader(video_path) as video:
        assert len(video) == 10
        with pytest.raises(IndexError, match='asked for, but it has 10'):
            video.read([index])


@pytest.mark.parametrize('name', ['a.mkv', 'a.mp4'])
def test_truncated_file_gives_what_it_has(tmp_path, name):
    path = tmp_path / name
    options = {'movflags': 'faststart'} if name == 'a.mp4' else {}
    with av.open(str(path), 'w', options=options) as container:
        stream = container.add_stream('libx264', rate=10, options={'g': '10'})
        stream.height, stream.width, stream.pix_fmt = 32, 40, 'yuv420p'
        for pixels in [*_noise(40), None]:
            frame = None if pixels is None else av.VideoFrame.from_ndarray(pixels)
            container.mux(stream.encode(frame))
    with VideoReader(path) as video:
        whole = video.read(range(40))
    content = path.read_bytes()
    lengths = []
    for percent in range(5, 100, 5):
        path.write_bytes(content[: len(content) * percent // 100])
        try:
            with VideoReader(path) as video:
                start = range(min(3, len(video)))
                np.testing.assert_array_equal(video.read(start), whole[: len(start)])
                lengths.append(len(video))
        except VideoError as error:
            assert str(path) in str(error)
            assert not lengths  # once a start is readable, longer ones are too
    assert len(lengths) > 10
    assert lengths == sorted(lengths)
    assert lengths[-1] < 40


def test_damaged_frame_raises_only_where_needed(tmp_path):
    write_video(tmp_path / 'a.avi', _noise(40))
    content = bytearray((tmp_path / 'a.avi').read_bytes())
    with av.open(str(tmp_path / 'a.avi')) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    place = packets[30].pos
    content[place + 8 : place + packets[30].size] = bytes(packets[30].size - 8)
    (tmp_path / 'a.avi').write_bytes(content)
    with VideoReader(tmp_path / 'a.avi') as video:
        assert len(video) == 40
        assert video.read([0, 20]).shape == (2, 32, 40, 3)
        with pytest.raises(VideoError, match=r'a\.avi: damaged: frame \d+ of 40 cannot be decoded'):
            video.read([0, 39])
        assert video.read([20, 0]).shape == (2, 32, 40, 3)


def test_bytes_read_as_their_file(video_path):
    with VideoReader(video_path) as file, VideoReader(video_path.read_bytes()) as memory:
        assert len(memory) == len(file) == 10
        np.testing.assert_array_equal(memory.read([9, 3]), file.read([9, 3]))


@pytest.mark.parametrize(
    'name', ['-dash.mp4', 'a:b c.mp4', 'http:a.mp4', '%03d.mp4', 'ü #?&.mp4', 'noextension']
)
def test_any_file_name_is_read(video_path, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(video_path.read_bytes())
    with VideoReader(name) as video, VideoReader(video_path) as original:
        assert video.name == name
        np.testing.assert_array_equal(video.read([4]), original.read([4]))


@pytest.mark.parametrize('default', [0, 1])
def test_default_stream_is_read(tmp_path, default):
    sizes = [(16, 32), (32, 64)]
    with av.open(str(tmp_path / 'a.mp4'), 'w') as container:
        streams = [container.add_stream('libx264', rate=10) for _ in sizes]
        for i, (stream, size) in enumerate(zip(streams, sizes, strict=True)):
            stream.height, stream.width = size
            stream.pix_fmt = 'yuv420p'
            stream.disposition = Disposition.default if i == default else Disposition(0)
        for stream, size in zip(streams, sizes, strict=True):
            for pixels in [*_noise(6, *size), None]:
                frame = None if pixels is None else av.VideoFrame.from_ndarray(pixels)
                container.mux(stream.encode(frame))
    with VideoReader(tmp_path / 'a.mp4') as video:
        assert video.read([0]).shape == (1, *sizes[default], 3)


@pytest.mark.skipif(not Path('/proc/self/fd').exists(), reason='needs /proc')
def test_opening_leaves_no_file_open(tmp_path, video_path):
    (tmp_path / 'text.mp4').write_text('hello ' * 99)
    _write_audio(tmp_path / 'sound.mp4')
    before = len(os.listdir('/proc/self/fd'))
    kept = []  # otherwise the garbage collector would close files that the reader left open
    for _ in range(20):
        with VideoReader(video_path) as video:
            video.read([0, 5])
            kept.append(video)
        for name in ('text.mp4', 'sound.mp4'):
            with pytest.raises(VideoError) as caught:
                VideoReader(tmp_path / name)
            kept.append(caught)
    assert len(os.listdir('/proc/self/fd')) == before


@pytest.mark.slow
def test_odd_videos_decode_or_name_themselves(shared):
    spec = Preprocessing(short_side=32, crop_size=24)
    failed = set()
    folder = shared / 'data' / 'odd_videos'
    paths = [path for path in folder.glob('*/*.*') if path.suffix not in ('.md', '.txt')]
    assert len(paths) > 40
    for path in paths:
        try:
            with VideoReader(path) as video:
                frames = [0, len(video) // 2, len(video) - 1]
                clip = video.read(frames, lambda h, w: view_crops(h, w, spec, 3))
            assert clip.shape == (3, 3, 24, 24, 3), path
            assert clip.dtype == np.uint8
        except VideoError as error:
            assert path.name in str(error)
            failed.add(path.name)
    assert failed == {
        'AudioVideoInterleave.avi',
        'FlashVideo.flv',
        'Mpeg4.mp4',
        'WindowsMediaVideo.wmv',
        'corrupted.mp4',
        'gif.gif',
        'mp4-with-audio.mp4',
        'nasa_13013.mp4.audio.mp3',
        'result.webm',
        'sine_mono_s16.wav',
    }


@pytest.mark.parametrize(
    ('name', 'shape'),
    [
        ('decord/flipping_a_pancake.mkv', (240, 426, 3)),
        ('decord/unordered.mov', (50, 50, 3)),
        ('decord/video_90.mov', (568, 320, 3)),
        ('decord/video_180.mov', (320, 568, 3)),
        ('moviepy/no_duration.webm', (720, 1280, 3)),
        ('moviepy/pigs_in_a_polka.gif', (273, 314, 3)),
        ('small/webm.webm', (8, 8, 3)),
        ('torchcodec/av1_video.mkv', (360, 640, 3)),
        ('torchcodec/h265_10bits.mp4', (200, 200, 3)),
        ('torchcodec/nasa_13013.mp4', (270, 480, 3)),
    ],
)
def test_odd_videos_equal_sequential_decoding(shared, name, shape):
    path = shared / 'data' / 'odd_videos' / name
    with av.open(str(path)) as container:
        stream = container.streams.best('video')
        frames = list(container.decode(stream))
        indices = [len(frames) - 1, 0, len(frames) // 2, len(frames) // 3]
        turns = {90: 1, -90: 3, 180: 2, -180: 2, 0: 0}[frames[0].rotation]
        expected = [np.rot90(frames[i].to_ndarray(format='rgb24'), turns) for i in indices]
    with VideoReader(path) as video:
        assert len(video) == len(frames)
        clip = video.read(indices)
    assert clip.shape == (4, *shape)
    np.testing.assert_array_equal(clip, expected)


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/statm').exists(), reason='needs /proc')
def test_memory_stays_over_many_opens(video_path):
    script = (
        'import sys\n'
        'from vivit_jax.video.video_reader import VideoReader\n'
        'for opened in range(1, 2001):\n'
        '    with VideoReader(sys.argv[1]) as video:\n'
        '        video.read([0, len(video) // 2])\n'
        '    if opened in (500, 2000):\n'
        '        print(open("/proc/self/statm").read().split()[1])\n'
    )
    command = [sys.executable, '-c', script, str(video_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    early, late = map(int, done.stdout.split())
    assert late < 1.05 * early
