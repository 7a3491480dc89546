import io
import itertools
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from vivit_jax.annotations.dataset import LabeledVideo
from vivit_jax.batches.sources import VideoFiles
from vivit_jax.prepare import encode as module
from vivit_jax.prepare.encode import Encoding, encode
from vivit_jax.video.frame_reader import VideoError
from vivit_jax.video.image_reader import ImageReader
from vivit_jax.video.synthetic import write_video
from vivit_jax.video.video_reader import VideoReader

_LEVELS = np.arange(20, 240, 9)  # of brightness: the number of a frame is burned in


def _numbered(count, height=48, width=64):
    return np.broadcast_to(
        _LEVELS[:count, None, None, None].astype(np.uint8), (count, height, width, 3)
    )


def _decode(content):
    """Times, numbers and sizes of frames, and which are key frames, by PyAV alone."""
    with av.open(io.BytesIO(content)) as container:
        frames = list(container.decode(video=0))
    gray = [frame.to_ndarray(format='gray').astype(float) for frame in frames]
    levels = np.array([image.mean() for image in gray])
    return (
        [float(frame.pts * frame.time_base) for frame in frames],
        np.abs(levels[:, None] - _LEVELS).argmin(1).tolist(),
        {image.shape for image in gray},
        [place for place, frame in enumerate(frames) if frame.key_frame],
    )


def _write_variable_rate(path, times, with_sound=False):
    # MP4 rounds the start to the time scale of the whole file.
    options = {'movie_timescale': '10000'} if path.suffix == '.mp4' else {}
    with av.open(str(path), 'w', options=options) as container:
        stream = container.add_stream('libx264', rate=25, options={'crf': '1'})
        stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuv420p'
        stream.codec_context.time_base = Fraction(1, 10_000)
        sound = container.add_stream('aac', rate=16000, layout='mono') if with_sound else None
        for time, pixels in zip(times, _numbered(len(times)), strict=True):
            frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
            frame.pts, frame.time_base = round(time * 10_000), Fraction(1, 10_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if with_sound:
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1600), np.float32), 'fltp', 'mono')
            silence.sample_rate = 16000
            container.mux([*sound.encode(silence), *sound.encode()])


def _one(path, **part):
    return VideoFiles([LabeledVideo(str(path), 0, **part)])


_GAPS = (0.04, 0.1, 0.033, 0.5, 0.04, 0.02, 0.04, 0.25, 0.04, 0.04, 0.111, 0.04)


@pytest.mark.parametrize(
    ('name', 'start'), [('a.mp4', 0.0), ('a.mp4', 0.7314), ('a.mkv', 0.0), ('a.mkv', 0.731)]
)
def test_frames_keep_number_order_and_times(tmp_path, name, start):
    times = list(itertools.accumulate(_GAPS, initial=start))
    _write_variable_rate(tmp_path / name, times)
    content = encode(_one(tmp_path / name), 0, Encoding(short_side=24, gop=5))
    found, numbers, sizes, key_frames = _decode(content)
    np.testing.assert_allclose(found, times, atol=2e-5)
    assert numbers == list(range(13))
    assert sizes == {(24, 32)}
    assert key_frames == [0, 5, 10]


def test_frames_decoded_in_several_chunks_are_the_same(tmp_path, monkeypatch):
    write_video(tmp_path / 'a.mp4', _numbered(20))
    whole = encode(_one(tmp_path / 'a.mp4'), 0, Encoding(gop=4))
    monkeypatch.setattr(module, '_CHUNK_BYTES', 7 * 48 * 64 * 3)
    assert encode(_one(tmp_path / 'a.mp4'), 0, Encoding(gop=4)) == whole
    assert _decode(whole)[1] == list(range(20))


def test_part_is_cut_and_starts_at_0(tmp_path):
    write_video(tmp_path / 'a.mp4', _numbered(20), rate=10)
    source = _one(tmp_path / 'a.mp4', start_sec=0.5, end_sec=1.2)
    times, numbers, sizes, key_frames = _decode(encode(source, 0, Encoding()))
    assert numbers == [5, 6, 7, 8, 9, 10, 11]
    np.testing.assert_allclose(times, np.arange(7) / 10, atol=2e-5)
    assert sizes == {(48, 64)}
    assert key_frames == [0]


@pytest.mark.parametrize(
    ('shape', 'short_side', 'expected'),
    [
        ((48, 64), 100, (48, 64)),  # never enlarged
        ((64, 48), 24, (32, 24)),
        ((48, 82), 24, (24, 40)),  # 41 is odd
        ((48, 64), None, (48, 64)),
    ],
)
def test_sizes_are_even_and_never_enlarged(tmp_path, shape, short_side, expected):
    write_video(tmp_path / 'a.mp4', _numbered(3, *shape))
    encoding = Encoding(short_side=short_side, gop=2)
    assert _decode(encode(_one(tmp_path / 'a.mp4'), 0, encoding))[2] == {expected}


@pytest.mark.parametrize(('rotation', 'corner'), [(90, (1, 0)), (180, (1, 1)), (-90, (0, 1))])
def test_rotated_video_is_stored_upright(tmp_path, rotation, corner):
    # The bright top left corner goes where a counter-clockwise turn takes it.
    video = np.full((4, 48, 64, 3), 40, np.uint8)
    video[:, :24, :32] = 220
    write_video(tmp_path / 'a.mp4', video)
    with av.open(str(tmp_path / 'a.mp4')) as old, av.open(str(tmp_path / 'b.mp4'), 'w') as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        stream.set_display_rotation(rotation)
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = stream
                new.mux(packet)
    content = encode(_one(tmp_path / 'b.mp4'), 0, Encoding(short_side=24))
    with av.open(io.BytesIO(content)) as container:
        frame = next(container.decode(video=0))
        pixels = frame.to_ndarray(format='gray')
    assert frame.rotation == 0
    assert pixels.shape == ((24, 32) if rotation == 180 else (32, 24))
    high, wide = pixels.shape
    means = pixels.reshape(2, high // 2, 2, wide // 2).mean((1, 3))
    assert np.unravel_index(means.argmax(), (2, 2)) == corner


def test_sound_is_dropped_and_pixels_stay_close(tmp_path):
    times = np.arange(6) / 25
    _write_variable_rate(tmp_path / 'a.mp4', times, with_sound=True)
    with av.open(str(tmp_path / 'a.mp4')) as container:
        assert len(container.streams) == 2
        old = [frame.to_ndarray(format='rgb24') for frame in container.decode(video=0)]
    with av.open(io.BytesIO(encode(_one(tmp_path / 'a.mp4'), 0, Encoding(gop=3, crf=1)))) as new:
        assert [stream.codec.name for stream in new.streams] == ['h264']
        found = [frame.to_ndarray(format='rgb24') for frame in new.decode(video=0)]
    np.testing.assert_allclose(found, old, atol=4)


def test_files_are_taken_as_they_are(tmp_path):
    write_video(tmp_path / 'a.mp4', _numbered(5))
    content = (tmp_path / 'a.mp4').read_bytes()
    assert encode(_one(tmp_path / 'a.mp4'), 0, Encoding()) == content
    (tmp_path / 'a.mp4').write_bytes(content[:-300])
    with pytest.raises(VideoError, match=r'a\.mp4: not a video file, or damaged'):
        encode(_one(tmp_path / 'a.mp4'), 0, Encoding())


def test_too_large_files_are_refused_before_they_are_read(tmp_path, monkeypatch):
    write_video(tmp_path / 'a.mp4', _numbered(5))
    monkeypatch.setattr(module, '_MAX_BYTES', 100)
    with pytest.raises(VideoError, match=r'a\.mp4: .* bytes are too many for a record: encode it'):
        encode(_one(tmp_path / 'a.mp4'), 0, Encoding())


@pytest.mark.parametrize(('suffix', 'options'), [('jpg', {'quality': 90}), ('png', {})])
@pytest.mark.parametrize('mode', ['RGB', 'L'])
def test_images_become_packets_unchanged(tmp_path, suffix, options, mode):
    for index in range(6):
        image = Image.new('RGB', (22, 18), (40 * index, 200 - 30 * index, 90)).convert(mode)
        image.save(tmp_path / f'img_{index:05d}.{suffix}', **options)
    source = _one(tmp_path, start_frame=1, num_frames=4)
    content = encode(source, 0, Encoding())
    with av.open(io.BytesIO(content)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    files = sorted(tmp_path.iterdir())
    assert packets == [file.read_bytes() for file in files[1:5]]
    assert encode(source, 0, Encoding()) == content  # nothing random in it
    with VideoReader(content) as video, source.open(0) as folder:
        found = video.read(range(4))
        np.testing.assert_array_equal(found, folder.read(range(4))['rgb'])
        np.testing.assert_allclose(video.timestamps_sec, np.arange(4) / 25)
    expected = [np.asarray(Image.open(file).convert('RGB'), int) for file in files[1:5]]
    np.testing.assert_allclose(found, expected, atol=3)


def test_images_in_memory_become_packets_too(tmp_path):
    for index, pixels in enumerate(_numbered(3)):
        Image.fromarray(pixels).save(tmp_path / f'{index:05d}.jpg')
    files = sorted(tmp_path.iterdir())

    class VideoSource(VideoFiles):
        def open_video(self, index, path):
            return ImageReader([file.read_bytes() for file in files], 'record 0')

    assert encode(VideoSource([LabeledVideo('record 0', 0)]), 0, Encoding()) == encode(
        _one(tmp_path), 0, Encoding()
    )


def test_images_are_encoded_anew_where_asked(tmp_path):
    for index, pixels in enumerate(_numbered(6)):
        Image.fromarray(pixels).save(tmp_path / f'{index:05d}.jpg')
    times, numbers, sizes, _ = _decode(encode(_one(tmp_path), 0, Encoding(short_side=24)))
    assert (numbers, sizes) == (list(range(6)), {(24, 32)})
    np.testing.assert_allclose(times, np.arange(6) / 25, atol=2e-5)
