"""Videos that are arrays of pixels already, such as frames of a camera or of another decoder."""

from collections.abc import Iterator, Sequence

import av
import numpy as np

from vivit_jax.video.frame_reader import FrameReader, VideoError
from vivit_jax.video.limits import Limits


class ArrayReader(FrameReader):
    """Frames in memory as a video.

    Args:
        frames: uint8 [t h w 3] in RGB, or a sequence of uint8 [h w 3].
        fps: frames per second.
        name: what messages call the video.
        kind: `'rgb'`, or `'depth'`, whose frames are uint16 or uint8 [h w].
        limits: what the video may have at most.

    Raises:
        VideoError: there are no frames, or frames of another type or shape.
    """

    def __init__(
        self,
        frames: np.ndarray | Sequence[np.ndarray],
        fps: float,
        name: str = 'array',
        kind: str = 'rgb',
        limits: Limits = Limits(),
    ):
        self.name = name
        self.limits = limits
        self._frames = frames
        self._fps = fps
        self._kind = kind
        if not len(frames):
            raise VideoError(f'{name}: has no frames')
        if not 0 < fps < np.inf:
            raise VideoError(f'{name}: fps={fps} must be a positive number of frames per second')
        shapes = {check_frame(frame, name, kind).shape for frame in frames}
        if len(shapes) > 1:
            raise VideoError(f'{name}: has frames of different sizes: {sorted(shapes)}')
        self._check_length(len(frames), (len(frames) - 1) / fps)

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def timestamps_sec(self) -> np.ndarray:
        return np.arange(len(self)) / self._fps

    def close(self):
        self._frames = ()

    def _decode(self, places: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        for place in places:
            yield place, as_frame(self._frames[place], self._kind)


def check_frame(frame: np.ndarray, name: str, kind: str = 'rgb') -> np.ndarray:
    """Returns the frame; raises a VideoError unless it is an array of the kind."""
    dtype, shape = getattr(frame, 'dtype', type(frame).__name__), np.shape(frame)
    if kind == 'depth':
        if dtype not in (np.uint8, np.uint16) or len(shape) != 2 or 0 in shape:
            raise VideoError(
                f'{name}: a frame is {dtype} {list(shape)}, but must be uint16 [h w], the depth in '
                'units of the sensor'
            )
        return frame
    if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise VideoError(
            f'{name}: a frame is {dtype} {list(shape)}, but must be uint8 [h w 3], in RGB from 0 '
            'to 255'
        )
    return frame


def as_frame(pixels: np.ndarray, kind: str = 'rgb') -> av.VideoFrame:
    """A frame uint8 [h w 3], or depth [h w], as FFmpeg has it; the pixels are copied."""
    if kind == 'depth':
        return av.VideoFrame.from_ndarray(pixels.astype(np.uint16), format='gray16le')
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format='rgb24')
