"""How large and how long a video may be, so that a small file cannot cost much time and memory."""

import dataclasses

from vivit_jax.errors import UserError

__all__ = ['Limits']

_EXCESS = {
    'max_pixels': 'its frames have {:,.0f} pixels',
    'max_side': 'a side of its frames has {:,.0f} pixels',
    'max_aspect': 'the longer side of its frames is {:,.4g} times the shorter side',
    'max_frames': 'it has {:,.0f} frames, or more',
    'max_sec': 'it lasts {:,.0f} s',
}


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a video may have at most; a film in 8K and a day of video pass.

    Attributes:
        max_pixels: the most pixels that a frame may have; a video beyond counts as broken.
        max_side: the most pixels that a side of a frame may have.
        max_aspect: how many times the shorter side of a frame the longer side may be.
        max_frames: the most frames that a video, or a part of it that is read, may have.
        max_sec: the most seconds from the first frame of a video, or of a part, to the last.

    Raises:
        UserError: one is less than 1.
    """

    max_pixels: int = 50_000_000
    max_side: int = 16_384
    max_aspect: float = 32.0
    max_frames: int = 3_000_000
    max_sec: float = 100_000.0

    def __post_init__(self):
        for name, value in dataclasses.asdict(self).items():
            if not value >= 1:
                raise UserError(f'data.limits.{name}={value} must be at least 1')

    @property
    def decoder_options(self) -> dict[str, str]:
        """Options of FFmpeg, so that it decodes no frame that is much too large.

        Decoders round the sides of a frame up to whole blocks and count the pixels of the blocks.
        """
        return {'max_pixels': str(2 * self.max_pixels)}

    def describe_size(self, height: int, width: int) -> str | None:
        """What to say of frames of height x width pixels if they are too large."""
        aspect = max(height, width) / max(min(height, width), 1)
        return self._describe(
            max_pixels=height * width, max_side=max(height, width), max_aspect=aspect
        )

    def describe_length(self, num_frames: int, seconds: float) -> str | None:
        """What to say of a video if it is too long."""
        return self._describe(max_frames=num_frames, max_sec=seconds)

    def _describe(self, **values: float) -> str | None:
        for name, value in values.items():
            if value > (limit := getattr(self, name)):
                return (
                    f'{_EXCESS[name].format(value)}, but data.limits.{name} allows {limit:,}: '
                    f'raise it with --config.data.limits.{name}, or --{name} of predict, if you '
                    'trust the video'
                )
        return None
