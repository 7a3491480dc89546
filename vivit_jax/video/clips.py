"""Clips of a video: frames sampled, decoded, resized and cut."""

import functools
from collections.abc import Iterator

import numpy as np

from vivit_jax.video.array_reader import ArrayReader
from vivit_jax.video.crops import RandomCrop, view_crops
from vivit_jax.video.frame_reader import FrameReader, VideoError
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.video.recording import Recording
from vivit_jax.video.sampling import sample_train_frames, sample_view_frames
from vivit_jax.video.windows import Span, cover

__all__ = ['frames_to_clip', 'read_random_clip', 'read_view']


def read_random_clip(
    video: FrameReader | Recording, crop: RandomCrop, rng: np.random.Generator
) -> np.ndarray | dict[str, np.ndarray]:
    """Draws a clip for training, in time and in place: uint8 [1 t h w 3].

    Of a recording, the clips are a dict, as `Recording.read` returns it.

    Raises:
        VideoError: the video cannot be decoded.
    """
    frames = sample_train_frames(len(video), crop.spec, rng)
    return video.read(frames, functools.partial(crop, rng=rng), crop.spec.interpolation)


def read_view(
    video: FrameReader | Recording,
    spec: Preprocessing,
    *,
    view: int = 0,
    num_views: int = 1,
    num_crops: int = 1,
    part: tuple[int, int] | None = None,
) -> np.ndarray | dict[str, np.ndarray]:
    """Reads one temporal view for evaluation or prediction, in all of its spatial views.

    Args:
        video: an open video.
        spec: how clips are made.
        view: which of the temporal views.
        num_views: temporal views of the video.
        num_crops: spatial views; a single one is the centre.
        part: (first frame, number of frames) to take the view from; by default the whole video.

    Returns:
        uint8 [num_crops t h w 3]; of a recording a dict, as `Recording.read` returns it.

    Raises:
        VideoError: the video cannot be decoded.
    """
    start, length = part or (0, len(video))
    frames = start + sample_view_frames(length, spec, view, num_views)
    crops = functools.partial(view_crops, spec=spec, num_crops=num_crops)
    return video.read(frames, crops, spec.interpolation)


def read_windows(
    video: Recording,
    spec: Preprocessing,
    windows: tuple[float, float] | None,
    notes: list[str],
) -> Iterator[tuple[Span, dict[str, np.ndarray]]]:
    """Reads the clip of every window; of a damaged video, of what comes before the damage.

    Args:
        video: an open recording.
        spec: how clips are made.
        windows: see `cover`.
        notes: a sentence is added if the video is damaged.

    Returns:
        Pairs of a window and its clips, `rgb` uint8 [t h w 3] and/or `depth` uint16 [t h w 1].

    Raises:
        VideoError: no frame can be decoded, or the windows do not fit the video.
    """
    usable, given = len(video), 0
    spans = cover(video.main.timestamps_sec, spec, windows, video.name)
    while given < len(spans):
        span = spans[given]
        try:
            clips = read_view(video, spec, part=(span.first, span.count))
        except VideoError as error:
            readable = video.count_readable()
            if not 0 < readable < usable:
                raise
            usable = readable
            # The windows before the last one stay where they are, and so do those given already,
            # even if one of them has undecodable frames that its clip did not need.
            spans = cover(video.main.timestamps_sec[:usable], spec, windows, video.name)
            cause = str(error).removeprefix(f'{video.name}: ')
            notes.append(f'only the first {usable} of {len(video)} frames were used: {cause}')
        else:
            given += 1
            yield span, {kind: clip for kind, [clip] in clips.items()}


def frames_to_clip(frames: np.ndarray, spec: Preprocessing) -> np.ndarray:
    """Makes the clip that prediction gives to a model: the middle in time and in place.

    Frames are resized like the frames of a file. If they need no resizing, the clip has exactly the
    pixels of a clip from a file with the same frames. Otherwise pixels differ a little, because a
    decoder gives colours at half the resolution, which are then resized in one step.

    Args:
        frames: uint8 [t h w 3] in RGB, or a sequence of uint8 [h w 3]; consecutive frames.
        spec: how clips are made, as `load_checkpoint` returns it.

    Returns:
        uint8 [t h w 3], of `spec.clip_shape`.

    Raises:
        VideoError: there are no frames, or frames of another type or shape.
    """
    return read_view(ArrayReader(frames, 1.0), spec)[0]
