"""Which depths videos have."""

from collections.abc import Callable

import numpy as np

from vivit_jax.video.frame_reader import VideoError
from vivit_jax.video.recording import Recording

_VIDEOS, _FRAMES = 8, 4  # looked at, evenly spread


def describe_depths(open_video: Callable[[int], Recording], num_videos: int) -> str:
    """What to say where `depth_range` is not set, with the depths of some videos.

    Args:
        open_video: opens the recording of an index.
        num_videos: how many there are.
    """
    depths, count = [], min(_VIDEOS, num_videos)
    for number in range(count):
        try:
            with open_video(number * num_videos // count) as video:
                places = np.linspace(0, len(video) - 1, _FRAMES).round().astype(int)
                depth = video.read(places)['depth']
        except VideoError:  # training reports it
            continue
        depths.append(depth[depth > 0])
    seen = np.concatenate(depths) if depths else np.empty(0)
    found = 'no video could be read, or all of them have no measurement'
    if seen.size:
        low, high = np.percentile(seen, [1, 99]).round().astype(int)
        found = (
            f'98 % of the depths in {len(depths)} training videos lie between {low} and {high}, '
            f'so --config.preprocessing.depth_range={high},{low} would fit'
        )
    return (
        'preprocessing.depth_range is not set: (far, near), the depths in units of the sensor that '
        f'become black and white; {found}'
    )
