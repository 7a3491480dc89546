"""Which frames make a clip, in whole frames.

The video is cut into equal parts: one for strided clips, one per unit, or one per frame of
segments. Part i of n of L frames is [⌊i·L/n⌋, ⌊(i+1)·L/n⌋), at least one frame. Each part of `size`
frames gives a window of w frames, of which every s-th is taken; windows start at 0 … size - w, both
included, or at 0 where the part is shorter.

| sampling | parts | frames of each | window w |
|---|---|---|---|
| strided | 1 | n at stride s | (n - 1)·s + 1, from the first frame to the last |
| units | U | n at stride s | n·s |
| segments | n | 1 | 1 |
"""

import dataclasses

import numpy as np

from vivit_jax.video.preprocessing import Preprocessing


def sample_train_frames(length: int, spec: Preprocessing, rng: np.random.Generator) -> np.ndarray:
    """Draws a clip from a video of `length` frames.

    Returns:
        int64 [frames of the clip], those of a unit ascending.
    """
    spec = _with_fitting_stride(length, spec)
    first, room = _windows(length, spec)
    return _clip(first + rng.integers(room + 1), length, spec)


def sample_view_frames(length: int, spec: Preprocessing, view: int, num_views: int) -> np.ndarray:
    """The clip of temporal view `view` of `num_views`.

    Windows start at round(view · room / (num_views - 1)), a single one in the middle, where room is
    the last possible start. Segments give the frame at (2·view + 1) / (2·num_views) of theirs.
    """
    spec = _with_fitting_stride(length, spec)
    first, room = _windows(length, spec)
    if spec.sampling == 'segments':
        start = (2 * view + 1) * (room + 1) // (2 * num_views)
    elif num_views == 1:
        start = room // 2
    else:
        start = np.rint(view * room / (num_views - 1)).astype(int)
    return _clip(first + start, length, spec)


def clip_span(spec: Preprocessing) -> int:
    """Frames that a video needs so that none is repeated: in each of its parts, for units."""
    if spec.sampling == 'units':
        return spec.num_frames * spec.frame_stride
    return (spec.num_frames - 1) * spec.frame_stride + 1


def _with_fitting_stride(length: int, spec: Preprocessing) -> Preprocessing:
    """With a stride of ⌊frames of a part / n⌋, at least 1, where that is smaller."""
    if spec.short_video != 'smaller_stride':
        return spec
    fitting = max(1, length // (spec.num_units * spec.num_frames))
    return dataclasses.replace(spec, frame_stride=min(spec.frame_stride, fitting))


def _windows(length: int, spec: Preprocessing) -> tuple[np.ndarray, np.ndarray]:
    """First frame of each part, and how many frames its window can move."""
    num_parts = {'strided': 1, 'units': spec.num_units, 'segments': spec.num_frames}[spec.sampling]
    edges = np.arange(num_parts + 1) * length // num_parts
    size = np.maximum(np.diff(edges), 1)
    window = 1 if spec.sampling == 'segments' else clip_span(spec)
    return edges[:-1], np.maximum(size - window, 0)


def _clip(starts: np.ndarray, length: int, spec: Preprocessing) -> np.ndarray:
    offsets = np.arange(1 if spec.sampling == 'segments' else spec.num_frames) * spec.frame_stride
    frames = (starts[:, None] + offsets).ravel()
    if spec.short_video == 'loop':
        return frames % length
    return np.minimum(frames, length - 1)
