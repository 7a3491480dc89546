"""How long videos are, and what to say about it."""

import statistics
from collections.abc import Callable

import numpy as np

from vivit_jax.video.frame_reader import FrameReader, VideoError
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.video.recording import Recording
from vivit_jax.video.sampling import sample_view_frames

# A single clip from a whole video is worth a word if the video is this many times longer than the
# training videos; if their length is not known, if frames are this far apart.
_LONG = 3
_FAR_SEC = 1.0


def median_duration_sec(
    open_video: Callable[[int], Recording], num_videos: int, most: int = 32
) -> float | None:
    """The median duration of some videos, without decoding them.

    Args:
        open_video: opens the video of an index.
        num_videos: how many there are.
        most: videos to open, evenly spread.

    Returns:
        Seconds, or None if no video can be used.
    """
    durations, count = [], min(most, num_videos)
    for number in range(count):
        try:
            with open_video(number * num_videos // count) as video:
                durations.append(video.main.duration_sec)
        except VideoError:  # training reports it
            continue
    return statistics.median(durations) if durations else None


def describe_missing(video: FrameReader) -> list[str]:
    """A sentence if a file has frames for much less time than its header announces."""
    if video.announced_sec is None or len(video) < 2:
        return []
    missing_sec = video.announced_sec - video.duration_sec
    if missing_sec <= max(0.05 * video.announced_sec, 2 * video.frame_sec):
        return []
    return [
        f'ends early: has frames for {video.duration_sec:.3g} of the {video.announced_sec:.3g} s '
        'that its header announces'
    ]


def describe_length(
    video: FrameReader, spec: Preprocessing, typical_sec: float | None
) -> list[str]:
    """A sentence if a model sees a few frames of a video that is long for them.

    Args:
        video: an open video.
        spec: how clips are made; strided clips have windows that cover a video of any length.
        typical_sec: duration of the training videos, if it is known.
    """
    if spec.sampling == 'strided':
        return []
    seen = f'{spec.clip_shape[0]} frames of the whole'
    if typical_sec:
        if video.duration_sec <= _LONG * typical_sec:
            return []
        return [
            f'lasts {video.duration_sec:.3g} s; the model was trained on videos of about '
            f'{typical_sec:.2g} s and sees {seen}: window_sec={typical_sec:.2g} gives each part '
            'of that length an answer'
        ]
    frames = sample_view_frames(len(video), spec, 0, 1)
    apart_sec = np.diff(video.timestamps_sec[frames]).max(initial=0)
    if apart_sec <= _FAR_SEC:
        return []
    return [
        f'lasts {video.duration_sec:.3g} s; the model sees {seen}, up to {apart_sec:.2g} s apart: '
        'with window_sec, each part has an answer of its own'
    ]
