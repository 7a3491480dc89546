"""Clips of a video: frames sampled, decoded, resized and cut."""

import functools

import numpy as np

from vivit_jax.video.crops import RandomCrop, view_crops
from vivit_jax.video.frame_reader import FrameReader
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.video.sampling import sample_train_frames, sample_view_frames

__all__ = ['read_random_clip', 'read_view']


def read_random_clip(video: FrameReader, crop: RandomCrop, rng: np.random.Generator) -> np.ndarray:
    """Draws a clip for training, in time and in place: uint8 [1 t h w 3].

    Raises:
        VideoError: the video cannot be decoded.
    """
    frames = sample_train_frames(len(video), crop.spec, rng)
    return video.read(frames, functools.partial(crop, rng=rng), crop.spec.interpolation)


def read_view(
    video: FrameReader,
    spec: Preprocessing,
    *,
    view: int = 0,
    num_views: int = 1,
    num_crops: int = 1,
    part: tuple[int, int] | None = None,
) -> np.ndarray:
    """Reads one temporal view for evaluation or prediction, in all of its spatial views.

    Args:
        video: an open video.
        spec: how clips are made.
        view: which of the temporal views.
        num_views: temporal views of the video.
        num_crops: spatial views; a single one is the centre.
        part: (first frame, number of frames) to take the view from; by default the whole video.

    Returns:
        uint8 [num_crops t h w 3].

    Raises:
        VideoError: the video cannot be decoded.
    """
    start, length = part or (0, len(video))
    frames = start + sample_view_frames(length, spec, view, num_views)
    crops = functools.partial(view_crops, spec=spec, num_crops=num_crops)
    return video.read(frames, crops, spec.interpolation)
