import re

import numpy as np
import pytest

from vivit_jax.video.array_reader import ArrayReader
from vivit_jax.video.durations import describe_length, describe_missing, median_duration_sec
from vivit_jax.video.frame_reader import VideoError
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.video.recording import Recording
from vivit_jax.video.video_reader import VideoReader

SEGMENTS = Preprocessing(num_frames=4, sampling='segments')


def video(num_frames, fps=10):
    return ArrayReader(np.zeros((num_frames, 2, 2, 3), np.uint8), fps)


def test_duration_ends_with_the_last_frame(synthetic_folder):
    assert video(20).duration_sec == pytest.approx(2)
    with VideoReader(synthetic_folder / 'train' / '00000.mp4') as file:  # 10 frames, 12 a second
        assert file.duration_sec == pytest.approx(10 / 12)
        assert file.announced_sec == pytest.approx(10 / 12, abs=1e-3)
        assert describe_missing(file) == []


def test_median_duration_leaves_out_broken_videos():
    def open_video(index):
        if index == 3:
            raise VideoError('broken')
        return Recording({'rgb': video([10, 30, 90][index])})

    assert median_duration_sec(open_video, 4) == pytest.approx(3)
    assert median_duration_sec(lambda _: open_video(3), 2) is None
    assert median_duration_sec(open_video, 0) is None


def test_median_duration_opens_a_few_videos_evenly():
    opened = []

    def open_video(index):
        opened.append(index)
        return Recording({'rgb': video(index + 1)})

    found = median_duration_sec(open_video, 100, most=4)
    assert opened == [0, 25, 50, 75]
    assert found == pytest.approx(3.85)


@pytest.mark.parametrize(
    ('num_frames', 'typical_sec', 'says'),
    [
        (60, 2.0, None),
        (61, 2.0, 'lasts 6.1 s; .* videos of about 2 s and sees 4 frames .*: window_sec=2 '),
        (40, None, None),
        (
            80,
            None,
            r'lasts 8 s; the model sees 4 frames of the whole, up to 2 s apart: .*window_sec',
        ),
        (1, None, None),
    ],
)
def test_long_video_with_one_answer_is_named(num_frames, typical_sec, says):
    found = describe_length(video(num_frames), SEGMENTS, typical_sec)
    assert len(found) == (says is not None)
    if says:
        assert re.search(says, found[0])
    assert describe_length(video(num_frames), Preprocessing(), typical_sec) == []
