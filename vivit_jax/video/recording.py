"""What was recorded together: an RGB video, its depth video, or both, frame by frame."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from vivit_jax.video.crops import Crops
from vivit_jax.video.frame_reader import FrameReader, VideoError, whole_frame

__all__ = ['Recording']

# Channels and type of the pixels of each kind of video.
PIXELS = {'rgb': (3, np.uint8), 'depth': (1, np.uint16)}


def blank_clips(kinds: Sequence[str], shape: Sequence[int]) -> dict[str, np.ndarray]:
    """Clips of zeros: `rgb` uint8 [*shape 3] and/or `depth` uint16 [*shape 1]."""
    return {
        kind: np.zeros((*shape, channels), dtype)
        for kind, (channels, dtype) in PIXELS.items()
        if kind in kinds
    }


class Recording:
    """Videos with the same frames, which are sampled and cut alike.

    Args:
        readers: `rgb`, `depth` or both.
        is_stretched: whether depth may have other sizes than RGB. Its frames are then stretched to
            the shape of the RGB frames, and taken at the same part of the video.

    Attributes:
        main: the first of the videos, whose frames and times count.
        name: what messages call the recording.

    Raises:
        VideoError: the depth has more or fewer frames than the RGB, and may not.
    """

    def __init__(self, readers: Mapping[str, FrameReader], is_stretched: bool = False):
        self._readers = dict(readers)
        self._is_stretched = is_stretched
        self.main = next(iter(self._readers.values()))
        self.name = self.main.name
        for reader in self._readers.values():
            if len(reader) != len(self.main) and not is_stretched:
                lengths = f'has {len(reader)} frames, but {self.name} has {len(self.main)}'
                self.close()
                raise VideoError(
                    f'{reader.name}: {lengths}: each frame must have its depth. If both show the '
                    'same time, preprocessing.stretch_depth=True takes frames from the same part'
                )

    def __enter__(self) -> 'Recording':
        return self

    def __exit__(self, *_):
        self.close()

    def __len__(self) -> int:
        return len(self.main)

    def close(self):
        """Closes the videos. Frames already read stay valid."""
        for reader in self._readers.values():
            reader.close()

    def count_readable(self) -> int:
        """Counts the frames before the first that cannot be decoded in one of the videos."""
        counts = (
            int(reader.count_readable() * len(self) / len(reader))
            for reader in self._readers.values()
        )
        return min(counts)

    def read(
        self,
        indices: Sequence[int],
        crops: Callable[[int, int], Crops] | None = None,
        interpolation: str = 'bilinear',
    ) -> dict[str, np.ndarray]:
        """Decodes, resizes and cuts frames of all videos in the same way.

        Args:
            indices: places in presentation order, in any order, repeats allowed.
            crops: see `FrameReader.read`; it is called once. By default the frames are kept whole.
            interpolation: of the resizing of RGB.

        Returns:
            `rgb` uint8 [crops n size size 3], `depth` uint16 [crops n size size 1]; whole frames
            have no axis of crops.

        Raises:
            VideoError: a frame that was asked for cannot be decoded, or RGB and depth have
                different sizes and may not.
        """
        drawn: list[tuple[tuple[int, int], Crops]] = []

        def draw_once(height: int, width: int) -> Crops:
            if not drawn:
                drawn.append(((height, width), (crops or whole_frame)(height, width)))
            [(first, found)] = drawn
            if first != (height, width) and not self._is_stretched:
                raise VideoError(
                    f'{self._readers["depth"].name}: has frames of {height} x {width} pixels '
                    f'(height x width), but {self.name} has {first[0]} x {first[1]}: depth and '
                    'RGB must lie on one another. preprocessing.stretch_depth=True stretches the '
                    'depth'
                )
            return found

        clips = {
            kind: reader.read(self._places(reader, indices), draw_once, interpolation, kind)
            for kind, reader in self._readers.items()
        }
        return clips if crops else {kind: x[0] for kind, x in clips.items()}

    def _places(self, reader: FrameReader, indices: Sequence[int]) -> np.ndarray:
        """The frames of a video at the same part of it, if it has more or fewer than the first."""
        indices = np.asarray(indices)
        if len(reader) == len(self):
            return indices
        return ((indices + 0.5) * len(reader) / len(self)).astype(int)
