import numpy as np
import pytest

from vivit_jax.video.clips import read_random_clip, read_view
from vivit_jax.video.crops import RandomCrop
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.video.synthetic import write_video
from vivit_jax.video.video_reader import VideoReader

SPEC = Preprocessing(num_frames=3, frame_stride=2, short_side=16, crop_size=16)


@pytest.fixture(scope='module')
def video(tmp_path_factory):
    """20 frames of 16 x 40 pixels, of which frame i has the grey level 10 i."""
    path = tmp_path_factory.mktemp('video') / 'video.mp4'
    levels = 10 * np.arange(20, dtype=np.uint8)
    write_video(path, np.broadcast_to(levels[:, None, None, None], (20, 16, 40, 3)))
    with VideoReader(path) as video:
        yield video


def frames_of(clip):
    return np.rint(np.median(clip, axis=(1, 2, 3)) / 10).astype(int).tolist()


@pytest.mark.parametrize(
    ('view', 'num_views', 'part', 'frames'),
    [
        (0, 1, None, [7, 9, 11]),  # starts are 0 … 15
        (0, 2, None, [0, 2, 4]),
        (1, 2, None, [15, 17, 19]),
        (0, 1, (10, 5), [10, 12, 14]),
        (1, 2, (4, 7), [6, 8, 10]),
    ],
)
def test_view_has_the_frames_of_its_place(video, view, num_views, part, frames):
    clips = read_view(video, SPEC, view=view, num_views=num_views, num_crops=3, part=part)
    assert clips.shape == (3, 3, 16, 16, 3)
    assert [frames_of(clip) for clip in clips] == [frames] * 3


def test_random_clip_is_one_draw_of_frames_and_then_of_the_crop(video):
    rng, same = np.random.default_rng(5), np.random.default_rng(5)
    (clip,) = read_random_clip(video, RandomCrop(SPEC), rng)
    start = same.integers(16)
    assert frames_of(clip) == [start, start + 2, start + 4]
    same.integers(1), same.integers(25)  # top and left
    assert rng.integers(1000) == same.integers(1000)
