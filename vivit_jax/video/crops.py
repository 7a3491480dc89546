"""How to resize and cut frames: sizes and corners only; `FrameReader` does the work."""

import dataclasses

import numpy as np

from vivit_jax.video.preprocessing import Preprocessing

__all__ = ['RandomCrop']


@dataclasses.dataclass(frozen=True)
class Crops:
    """Frames are resized to height x width pixels and a box is cut at each corner.

    Attributes:
        height, width: of the whole resized frame.
        corners: (top, left) of every box.
        size: (height, width) of the boxes.
    """

    height: int
    width: int
    corners: tuple[tuple[int, int], ...]
    size: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class RandomCrop:
    """A random square for training, one for all frames of a clip.

    Attributes:
        spec: sizes in pixels.
        scale_jitter: range of a factor on the short side, drawn uniformly.
        resized_area: where set, the square holds this part (a range in (0, 1]) of the largest
            square of the frame, stretched by `aspect_ratio`, instead of a fixed size.
        aspect_ratio: range of width / height of the part that becomes the square.

    Source: Inception (arXiv 1409.4842), section 6, for the random resized crop.
    """

    spec: Preprocessing
    scale_jitter: tuple[float, float] | None = None
    resized_area: tuple[float, float] | None = None
    aspect_ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __call__(self, height: int, width: int, rng: np.random.Generator) -> Crops:
        """Draws the square for frames of `height` x `width` pixels."""
        size = self.spec.crop_size
        if self.resized_area:
            short = min(height, width)
            area = rng.uniform(*self.resized_area)
            ratio = np.exp(rng.uniform(*np.log(self.aspect_ratio)))
            part_height = min(short * np.sqrt(area / ratio), height)
            part_width = min(short * np.sqrt(area * ratio), width)
            height = max(size, round(height * size / part_height))
            width = max(size, round(width * size / part_width))
        else:
            factor = rng.uniform(*self.scale_jitter) if self.scale_jitter else 1
            short_side = max(size, round(self.spec.short_side * factor))
            height, width = resize_short_side(height, width, short_side)
        top = int(rng.integers(height - size + 1))
        left = int(rng.integers(width - size + 1))
        return Crops(height, width, ((top, left),), (size, size))


def view_crops(height: int, width: int, spec: Preprocessing, num_crops: int) -> Crops:
    """Evenly spaced squares along the longer side; a single one is the centre."""
    size = spec.crop_size
    height, width = resize_short_side(height, width, spec.short_side)
    middle = ((height - size) // 2, (width - size) // 2)
    corners = [middle]
    if num_crops > 1:
        room = max(height, width) - size
        places = [round(i * room / (num_crops - 1)) for i in range(num_crops)]
        corners = [(place, middle[1]) if height > width else (middle[0], place) for place in places]
    return Crops(height, width, tuple(corners), (size, size))


def resize_short_side(height: int, width: int, short_side: int) -> tuple[int, int]:
    """The size with the same shape whose shorter side is `short_side` pixels."""
    if height < width:
        return short_side, round(width * short_side / height)
    return round(height * short_side / width), short_side
