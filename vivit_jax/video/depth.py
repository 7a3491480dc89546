"""Depth in decoded frames: values as the sensor gave them, in its own units."""

import re

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from vivit_jax.video.crops import Crops

_COLOURED = (
    'it has colours, so it is no depth: depth is grey, in 8 or 16 bits; a colour map must be '
    'undone first'
)
_MOST_CHROMA = 3  # mean distance from grey


class DepthCutter:
    """Turns decoded depth frames upright, resizes and cuts them: uint16 [crops h w 1].

    A resized pixel is the nearest one, because a mean of two depths is the depth of nothing.

    Args:
        crops: sizes and corners, for upright frames.
    """

    def __init__(self, crops: Crops):
        self._crops = crops
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame, quarter_turns: int) -> np.ndarray:
        """Cuts a frame that `quarter_turns` counter-clockwise make upright.

        Raises:
            ValueError: the frame has colours, or another format that is no depth.
        """
        depth = np.rot90(_read_depth(frame, self._reformatter), quarter_turns)
        rows = _nearest(self._crops.height, depth.shape[0])
        columns = _nearest(self._crops.width, depth.shape[1])
        high, wide = self._crops.size
        boxes = [
            depth[rows[top : top + high, None], columns[left : left + wide]]
            for top, left in self._crops.corners
        ]
        return np.stack(boxes)[..., None].astype(np.uint16)


def _nearest(size: int, source: int) -> np.ndarray:
    """For each of `size` places, the nearest of `source` places."""
    return ((np.arange(size) + 0.5) * source / size).astype(int)


def _read_depth(frame: av.VideoFrame, reformatter: VideoReformatter) -> np.ndarray:
    """The values of a frame, uint8 or uint16 [h w], unchanged.

    Grey frames of up to 16 bits have their values. Of frames of 8 bits in YUV the brightness
    counts, from 0 to 255; of frames in RGB any colour, which must all be equal.
    """
    kind = frame.format.name
    if grey := re.fullmatch(r'gray(?:(?:9|10|12|14|16)(le|be))?', kind):
        dtype = {None: 'u1', 'le': '<u2', 'be': '>u2'}[grey[1]]
        return _pixels(frame.planes[0], dtype)
    if frame.format.has_palette or (frame.format.is_rgb and _is_8_bit(frame)):
        rgb = reformatter.reformat(frame, format='rgb24', threads=1)
        pixels = _pixels(rgb.planes[0], channels=3)
        if (pixels != pixels[..., :1]).any():
            raise ValueError(_COLOURED)
        return pixels[..., 0]
    if kind.startswith(('yuv', 'nv')) and _is_8_bit(frame):
        # Lossy coding shifts the colours of grey a little.
        for plane in frame.planes[1:3]:  # the fourth would be transparency
            if np.abs(_pixels(plane).astype(int) - 128).mean() > _MOST_CHROMA:
                raise ValueError(_COLOURED)
        return _pixels(reformatter.reformat(frame, format='gray', threads=1).planes[0])
    raise ValueError(
        f'its pixels are {kind}, from which no depth can be read: give grey frames of 8 or 16 bits'
    )


def _is_8_bit(frame: av.VideoFrame) -> bool:
    return all(component.bits <= 8 for component in frame.format.components)


def _pixels(plane: av.video.plane.VideoPlane, dtype: str = 'u1', channels: int = 1) -> np.ndarray:
    """The pixels of a plane without the padding of its lines: [h w], or [h w channels]."""
    width = plane.width * channels
    rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height]
    pixels = rows[:, : width * np.dtype(dtype).itemsize].copy().view(dtype)
    return pixels if channels == 1 else pixels.reshape(plane.height, plane.width, channels)
