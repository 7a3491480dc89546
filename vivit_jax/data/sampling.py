"""Which frames make a clip. Integer arithmetic only.

A clip of n frames at stride s spans (n - 1) * s + 1 frames of the video, so its first frame lies in
0 … length - span, both included. Segment i of n is [⌊i·L/n⌋, ⌊(i+1)·L/n⌋), at least one frame.
"""

import numpy as np

from vivit_jax.data.preprocessing import Preprocessing


def sample_train_frames(length: int, spec: Preprocessing, rng: np.random.Generator) -> np.ndarray:
    """Draws a clip from a video of `length` frames; returns `num_frames` indices, ascending."""
    if spec.sampling == 'segments':
        first, size = _segments(length, spec.num_frames)
        frames = first + rng.integers(size)
    else:
        start = rng.integers(_last_start(length, spec) + 1)
        frames = start + np.arange(spec.num_frames) * spec.frame_stride
    return _within(frames, length, spec)


def sample_view_frames(length: int, spec: Preprocessing, view: int, num_views: int) -> np.ndarray:
    """The clip of temporal view `view` of `num_views`.

    Strided clips start at round(view · last / (num_views - 1)), a single one in the middle.
    Segments give the frame at (2·view + 1) / (2·num_views) of their length.
    """
    if spec.sampling == 'segments':
        first, size = _segments(length, spec.num_frames)
        frames = first + (2 * view + 1) * size // (2 * num_views)
    else:
        last = _last_start(length, spec)
        start = last // 2 if num_views == 1 else round(view * last / (num_views - 1))
        frames = start + np.arange(spec.num_frames) * spec.frame_stride
    return _within(frames, length, spec)


def clip_span(spec: Preprocessing) -> int:
    """Frames of the video from a strided clip's first to its last, both included."""
    return (spec.num_frames - 1) * spec.frame_stride + 1


def _last_start(length: int, spec: Preprocessing) -> int:
    return max(0, length - clip_span(spec))


def _segments(length: int, num_segments: int) -> tuple[np.ndarray, np.ndarray]:
    edges = np.arange(num_segments + 1) * length // num_segments
    return edges[:-1], np.maximum(np.diff(edges), 1)


def _within(frames: np.ndarray, length: int, spec: Preprocessing) -> np.ndarray:
    if spec.short_video == 'loop':
        return frames % length
    return np.minimum(frames, length - 1)
