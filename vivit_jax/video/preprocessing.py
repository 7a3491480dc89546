"""How a video becomes the pixels that a model was trained on."""

import dataclasses
import math
from typing import TypeVar

import numpy as np

from vivit_jax.errors import check_types

__all__ = ['Preprocessing', 'normalize', 'normalize_depth', 'to_unit_range']

_Array = TypeVar('_Array')  # of NumPy or of JAX, which decoding processes must not import

_MOST_PIXELS = 2**28  # of a clip

_CHOICES = {
    'sampling': ('strided', 'segments', 'units'),
    'short_video': ('repeat_last', 'loop', 'smaller_stride'),
    'interpolation': ('bilinear', 'bicubic', 'area'),
    'color_order': ('rgb', 'bgr'),
}


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Stored in every checkpoint; training, evaluation and prediction all read it from there.

    The defaults are the original ViViT's.

    Attributes:
        num_frames: frames of a clip, or of each of its units.
        frame_stride: distance of a clip's frames in the video; `segments` ignores it.
        sampling: `'strided'`; `'segments'`: one frame from each of `num_frames` equal parts;
            `'units'`: strided frames from each of `num_units` equal parts.
        num_units: parts of the video that `units` samples.
        short_video: frames past the end are the last one (`'repeat_last'`) or start over
            (`'loop'`); or the stride is as small as the video or unit asks for
            (`'smaller_stride'`), and only then frames are repeated.
        short_side: pixels of the shorter side of the resized frame.
        crop_size: pixels of the square that is cut from it.
        interpolation: `'bilinear'`, `'bicubic'` or `'area'`.
        value_range: what the pixel values 0 and 255 become.
        color_order: `'rgb'` or `'bgr'`.
        depth_range: (far, near), the depths in units of the sensor that become the two numbers of
            `value_range`; depths beyond are cut off. Depth 0, which is no measurement, becomes the
            first number, like `far`.
        stretch_depth: of RGB with depth, whether the depth may have other sizes and another number
            of frames than the RGB; its frames are then stretched to the shape of the RGB frames.

    Raises:
        ValueError: an unknown choice, or sizes that do not fit each other.
    """

    num_frames: int = 32
    frame_stride: int = 2
    sampling: str = 'strided'
    num_units: int = 1
    short_video: str = 'repeat_last'
    short_side: int = 256
    crop_size: int = 224
    interpolation: str = 'bilinear'
    value_range: tuple[float, float] = (-1.0, 1.0)
    color_order: str = 'rgb'
    depth_range: tuple[float, ...] = ()
    stretch_depth: bool = False

    def __post_init__(self):
        check_types(self, 'preprocessing.')
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(
                    f'preprocessing.{name}={getattr(self, name)!r} must be one of {choices}'
                )
        for name in ('num_frames', 'num_units', 'frame_stride', 'crop_size'):
            if getattr(self, name) < 1:
                raise ValueError(f'preprocessing.{name}={getattr(self, name)} must be at least 1')
        if math.prod(self.clip_shape) > _MOST_PIXELS:
            raise ValueError(
                f'clips of {self.num_units} x {self.num_frames} frames of {self.crop_size} x '
                f'{self.crop_size} pixels are too large: at most {_MOST_PIXELS} pixels in all'
            )
        if self.num_units > 1 and self.sampling != 'units':
            raise ValueError(
                f"preprocessing.num_units={self.num_units} needs preprocessing.sampling='units', "
                f'which is {self.sampling!r}'
            )
        if self.short_side < self.crop_size:
            raise ValueError(
                f'preprocessing.short_side={self.short_side} must be at least '
                f'crop_size={self.crop_size}: the crop is cut from the resized frame'
            )
        if len(self.value_range) != 2 or self.value_range[0] == self.value_range[1]:
            raise ValueError(f'preprocessing.value_range={self.value_range} must be two numbers')
        for name in ('value_range', 'depth_range'):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON has only lists
        depth = self.depth_range
        if depth and (len(depth) != 2 or depth[0] == depth[1] or min(depth) < 0):
            raise ValueError(
                f'preprocessing.depth_range={depth} must be (far, near), two different depths, '
                'from 0'
            )

    def with_units(self, num_units: int | None) -> 'Preprocessing':
        """The same with another number of units; None changes nothing.

        Raises:
            ValueError: clips have no units, because `sampling` is not `'units'`.
        """
        return self if num_units is None else dataclasses.replace(self, num_units=num_units)

    @property
    def clip_shape(self) -> tuple[int, int, int]:
        """(t, h, w) of a clip in frames and pixels; t is of all units."""
        return self.num_units * self.num_frames, self.crop_size, self.crop_size


def normalize_depth(depth: _Array, spec: Preprocessing) -> _Array:
    """Depths [...] in units of the sensor to float32 in the value range of `spec`.

    Raises:
        ValueError: `depth_range` is not set.
    """
    if not spec.depth_range:
        raise ValueError('preprocessing.depth_range is not set, which says what depths become')
    far, near = spec.depth_range
    low, high = spec.value_range
    depth = depth.astype(np.float32)
    part = ((depth - far) / (near - far)).clip(0, 1) * (depth > 0)
    return low + (high - low) * part


def to_unit_range(rgb: _Array) -> _Array:
    """uint8 to float32 in [0, 1]."""
    return rgb.astype(np.float32) / 255


def normalize(clip: _Array, spec: Preprocessing) -> _Array:
    """Float clips [... 3] in [0, 1] to the value range and colour order of `spec`."""
    low, high = spec.value_range
    if spec.color_order == 'bgr':
        clip = clip[..., ::-1]
    return low + (high - low) * clip
