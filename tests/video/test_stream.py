import contextlib
import functools
import http.server
import itertools
import threading
import time
import tracemalloc
from fractions import Fraction
from unittest import mock

import av
import numpy as np
import pytest
from remux import remux

from vivit_jax.video.array_reader import ArrayReader
from vivit_jax.video.clips import read_view
from vivit_jax.video.frame_reader import VideoError
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.video.stream import _read_container, keep_newest, open_stream, window_clips
from vivit_jax.video.synthetic import write_video
from vivit_jax.video.video_reader import VideoReader
from vivit_jax.video.windows import WindowCutter, cover

SPEC = Preprocessing(num_frames=4, frame_stride=2, short_side=20, crop_size=16)
SEGMENTS = Preprocessing(num_frames=4, sampling='segments', short_side=20, crop_size=16)


def noise(num_frames, height=24, width=32):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (num_frames, height, width, 3), np.uint8)


@pytest.fixture(scope='module')
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp('video') / 'video.mp4'
    write_video(path, noise(60), rate=10)
    return path


@pytest.fixture(scope='module')
def uneven_path(tmp_path_factory):
    """A video whose frames follow each other after 40 to 900 ms."""
    path = tmp_path_factory.mktemp('video') / 'uneven.mkv'
    times = np.cumsum(np.random.default_rng(1).integers(40, 900, 40))
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=25, options={'bf': '2', 'preset': 'veryfast'})
        stream.height, stream.width, stream.pix_fmt = 24, 32, 'yuv420p'
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for pixels, pts in zip(noise(40), times.tolist(), strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
            frame.pts, frame.time_base = pts, stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize('spec', [SPEC, SEGMENTS], ids=['strided', 'segments'])
@pytest.mark.parametrize(('window_sec', 'stride_sec'), [(1, 1), (2, 0.5), (0.9, 2.2), (99, 99)])
@pytest.mark.parametrize('video', ['path', 'uneven_path'])
def test_windows_of_a_stream_are_those_of_the_file(request, video, window_sec, stride_sec, spec):
    path = request.getfixturevalue(video)
    stream = open_stream(str(path))
    assert not stream.is_live
    found = list(window_clips(stream.frames, spec, WindowCutter(window_sec, stride_sec)))
    with VideoReader(path) as reader:
        spans = cover(reader.timestamps_sec, spec, (window_sec, stride_sec), 'video')
        assert [span for span, _ in found] == spans
        for span, clip in found:
            part = span.first, span.count
            np.testing.assert_array_equal(clip, read_view(reader, spec, part=part)[0])


def counted(frames, pulled):
    for item in frames:
        pulled.append(item)
        yield item


@pytest.mark.parametrize(('frame_sec', 'pulled_at'), [(0.1, [10, 20, 30]), (0, [11, 21, 30])])
def test_window_comes_with_its_last_frame(frame_sec, pulled_at):
    pulled, found = [], []
    frames = counted(((i / 10, pixels) for i, pixels in enumerate(noise(30))), pulled)
    for _ in window_clips(frames, SPEC, WindowCutter(1, 1), frame_sec):
        found.append(len(pulled))
    assert found == pulled_at


def test_memory_does_not_grow_with_the_length_of_a_stream():
    pixels = noise(1)[0]

    def peak(num_frames):
        frames = ((i / 10, pixels) for i in range(num_frames))
        tracemalloc.start()
        try:
            for _ in window_clips(frames, SPEC, WindowCutter(2, 1)):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(40)
    assert peak(800) < 1.5 * peak(80)


def test_frames_of_another_size_are_cut_alike():
    small, large = noise(10), noise(10, 48, 64)
    frames = [(i / 10, pixels) for i, pixels in enumerate([*small, *large])]
    clips = [clip for _, clip in window_clips(frames, SPEC, WindowCutter(1, 1))]
    for clip, pixels in zip(clips, (small, large), strict=True):
        np.testing.assert_array_equal(clip, read_view(ArrayReader(pixels, 10), SPEC)[0])


def test_damage_ends_a_stream_after_the_windows_before_it():
    def frames():
        for i, pixels in enumerate(noise(25)):
            yield i / 10, pixels
        raise VideoError('damaged')

    found = []
    with pytest.raises(VideoError, match='damaged'):
        for span, _ in window_clips(frames(), SPEC, WindowCutter(1, 1)):
            found.append((span.first, span.count))
    assert found == [(0, 10), (10, 10), (15, 10)]


@pytest.mark.parametrize('pixels', [np.zeros((8, 8, 3)), np.zeros((1, 8, 8, 3), np.uint8), 'a.mp4'])
def test_other_frames_are_refused(pixels):
    with pytest.raises(VideoError, match=r'must be uint8 \[h w 3\]'):
        list(window_clips([(0.0, pixels)], SPEC, WindowCutter(1, 1)))


def test_slow_reader_gets_the_newest_and_the_number_of_those_left_out():
    taken, produced = threading.Event(), threading.Event()

    def items():
        yield 0
        taken.wait(10)
        yield from range(1, 6)
        produced.set()

    newest = keep_newest(items())
    assert next(newest) == (0, 0)
    taken.set()
    produced.wait(10)
    found = list(newest)
    assert found[-1][1] == 5
    assert sum(left_out + 1 for left_out, _ in found) == 5
    assert len(found) <= 2  # one may have been taken in between


def test_quick_reader_gets_everything():
    taken = threading.Semaphore(1)

    def items():
        for number in range(20):
            taken.acquire(timeout=10)
            yield number

    found = []
    for left_out, number in keep_newest(items()):
        assert left_out == 0
        found.append(number)
        taken.release()
    assert found == list(range(20))


def test_error_of_a_live_stream_arrives_after_its_items():
    def items():
        yield 1
        raise VideoError('breaks off')

    newest = keep_newest(items())
    assert next(newest) == (0, 1)
    with pytest.raises(VideoError, match='breaks off'):
        next(newest)


def test_reading_ends_with_the_reader():
    before = threading.active_count()
    newest = keep_newest(itertools.count())
    next(newest)
    newest.close()
    for _ in range(100):
        if threading.active_count() == before:
            break
        time.sleep(0.01)
    assert threading.active_count() == before


@contextlib.contextmanager
def serve(handler):
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f'http://127.0.0.1:{server.server_port}'
        finally:
            server.shutdown()


def serve_folder(folder):
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    return serve(functools.partial(Handler, directory=str(folder)))


def test_playlist_of_an_address_gives_addresses_but_no_files(path, tmp_path):
    remux(path, tmp_path / 'part.ts')
    playlist = '#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:6,\n{}\n#EXT-X-ENDLIST\n'
    (tmp_path / 'live.m3u8').write_text(playlist.format('part.ts'))
    (tmp_path / 'local.m3u8').write_text(playlist.format(f'file://{tmp_path}/part.ts'))
    with serve_folder(tmp_path) as address:
        assert len(list(open_stream(f'{address}/live.m3u8').frames)) == 60
        with pytest.raises(VideoError, match=r'local\.m3u8: '):
            list(open_stream(f'{address}/local.m3u8').frames)
    assert len(list(open_stream(f'file://{tmp_path}/part.ts').frames)) == 60
    with pytest.raises(VideoError, match='is an HLS'):
        list(open_stream(f'file://{tmp_path}/live.m3u8').frames)


def test_address_gives_the_frames_of_the_file(path):
    with serve_folder(path.parent) as address:
        stream = open_stream(f'{address}/video.mp4')
        assert not stream.is_live  # it says how long it is
        found = [(time, frame.to_ndarray(format='rgb24')) for time, frame in stream.frames]
        with pytest.raises(VideoError, match=r'/missing\.mp4: cannot be opened \(.*404'):
            open_stream(f'{address}/missing.mp4')
    with VideoReader(path) as reader:
        assert [time for time, _ in found] == reader.timestamps_sec.tolist()
        np.testing.assert_array_equal([pixels for _, pixels in found], reader.read(range(60)))


@contextlib.contextmanager
def serve_bytes(content, halts=False):
    """Serves some bytes without saying how many there are."""
    halted = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = 'HTTP/1.1'

        def do_GET(self):
            self.send_response(200)
            self.send_header('Transfer-Encoding', 'chunked')
            self.end_headers()
            self.wfile.write(b'%x\r\n%b\r\n' % (len(content), content))
            if halts:
                halted.wait(10)
            self.wfile.write(b'0\r\n\r\n')

        def log_message(self, *_):
            pass

    with serve(Handler) as address:
        try:
            yield address
        finally:
            halted.set()


def test_stalled_address_breaks_off_after_the_windows_before(path, tmp_path, monkeypatch):
    monkeypatch.setattr('vivit_jax.video.stream._TIMEOUT_SEC', 0.3)
    content, found = remux(path, tmp_path / 'ahead.mp4').read_bytes(), []
    with (
        serve_bytes(content[: len(content) // 2], halts=True) as address,
        pytest.raises(VideoError, match='breaks off'),
    ):
        frames = open_stream(address).frames
        for span, _ in window_clips(frames, SPEC, WindowCutter(1, 1)):
            found.append(span.start_sec)
    assert found[:2] == [0, 1]


def test_live_address_gives_all_frames(path, tmp_path):
    content = remux(path, tmp_path / 'live.ts').read_bytes()
    with serve_bytes(content) as address:
        stream = open_stream(address)
        assert stream.is_live
        times = [time for time, _ in stream.frames]
    np.testing.assert_allclose(np.diff(times), 0.1)
    assert len(times) == 60


class DamagedPacket:
    def decode(self):
        raise av.InvalidDataError(0, 'bits are missing')


@pytest.mark.parametrize('is_live', [True, False])
def test_only_a_live_stream_goes_on_after_damage_and_says_so(path, tmp_path, caplog, is_live):
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        packets = list(container.demux(video))
        damaged = mock.MagicMock()
        damaged.demux.return_value = [*packets[:30], *[DamagedPacket()] * 2, *packets[30:]]
        frames = _read_container(damaged, video, 'camera', is_live)
        if is_live:
            assert len(list(frames)) == 60
            assert 'camera: a part cannot be decoded (bits are missing)' in caplog.text
            assert 'camera: 2 parts could not be decoded' in caplog.text
        else:
            with pytest.raises(VideoError, match=r'camera: breaks off \(bits are missing\)'):
                list(frames)


def test_times_that_start_over_are_an_error(path, tmp_path):
    content = remux(path, tmp_path / 'live.ts').read_bytes()
    with (
        serve_bytes(2 * content) as address,
        pytest.raises(VideoError, match='its times go back from'),
    ):
        list(open_stream(address).frames)


def test_missing_sources_are_errors():
    with pytest.raises(VideoError, match='/dev/null: cannot be opened'):
        open_stream('/dev/null')  # a device that is no camera
    with pytest.raises(VideoError, match='no such file'):
        next(open_stream('/dev/video987').frames)
