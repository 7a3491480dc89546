from fractions import Fraction

import av
import numpy as np
import pytest
from remux import remux
from small_runs import write_noise

from vivit_jax.predictor import Predictor
from vivit_jax.video.frame_reader import VideoError
from vivit_jax.video.video_reader import VideoReader


@pytest.fixture(scope='module')
def predictor(run_folder):
    return Predictor(run_folder)


@pytest.fixture(scope='module')
def good(tmp_path_factory):
    """A video of 60 frames in 6 seconds, with its index at the front."""
    folder = tmp_path_factory.mktemp('video')
    path = write_noise(folder / 'a.mp4', 60)
    return remux(path, folder / 'good.mp4')


def cut(path, other, part):
    content = path.read_bytes()
    other.write_bytes(content[: int(part * len(content))])
    return other


def spoil(path, other, number):
    """Overwrites the packet of that number with zeros."""
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][number]
        content[packet.pos : packet.pos + packet.size] = bytes(packet.size)
    other.write_bytes(content)
    return other


def test_video_that_is_damaged_in_the_middle_is_predicted_up_to_there(tmp_path, predictor, good):
    damaged = spoil(good, tmp_path / 'damaged.mp4', 30)
    found, expected = predictor(damaged), predictor(good)
    [note] = found.notes
    with VideoReader(damaged) as video:
        readable = video.count_readable()
    assert 20 < readable <= 30
    assert note.startswith(f'only the first {readable} of 60 frames were used: damaged: frame ')
    assert 1 < len(found.windows) < len(expected.windows)
    for window, whole in zip(found.windows[:-1], expected.windows, strict=False):
        assert window.start_sec == whole.start_sec
        np.testing.assert_array_equal(window.probabilities, whole.probabilities)
    assert found.windows[-1].end_sec == pytest.approx(readable / 10)


def test_damaged_video_equals_the_frames_before_the_damage(tmp_path, predictor):
    good = remux(write_noise(tmp_path / 'a.mp4', 60, (16, 16)), tmp_path / 'b.mp4')
    damaged = spoil(good, tmp_path / 'damaged.mp4', 30)
    with VideoReader(good) as video, VideoReader(damaged) as broken:
        frames = video.read(range(broken.count_readable()))
    found, expected = predictor(damaged), predictor(frames, fps=10)
    assert len(found.windows) == len(expected.windows) > 2
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)


@pytest.mark.parametrize('suffix', ['.mp4', '.mkv'])
def test_file_that_ends_early_says_so(tmp_path, predictor, good, suffix):
    path = good if suffix == '.mp4' else remux(good, tmp_path / 'a.mkv')
    assert predictor(path).notes == ()
    found = predictor(cut(path, tmp_path / f'cut{suffix}', 0.5))
    assert 'that its header announces' in found.notes[-1]
    assert 1 < found.windows[-1].end_sec < 4


def test_video_without_a_readable_frame_is_an_error(tmp_path, predictor, good):
    with pytest.raises(VideoError, match=r'none\.mp4: damaged'):
        predictor(spoil(good, tmp_path / 'none.mp4', 0))


def test_folder_with_a_damaged_image_is_predicted_up_to_it(tmp_path, predictor):
    with VideoReader(write_noise(tmp_path / 'a.mp4', 20, (16, 16))) as video:
        frames = video.read(range(20))
    (tmp_path / 'frames').mkdir()
    for number, pixels in enumerate(frames):
        codec = av.CodecContext.create('png', 'w')
        codec.height, codec.width, codec.pix_fmt, codec.time_base = 16, 16, 'rgb24', Fraction(1, 25)
        [packet] = codec.encode(av.VideoFrame.from_ndarray(pixels, format='rgb24'))
        (tmp_path / 'frames' / f'{number:05}.png').write_bytes(bytes(packet))
    (tmp_path / 'frames' / '00013.png').write_bytes(b'junk')
    found = predictor(tmp_path / 'frames')
    assert found.notes[0].startswith('only the first 13 of 20 frames were used: ')
    expected = predictor(frames[:13], fps=25)
    np.testing.assert_array_equal(found.probabilities, expected.probabilities)
