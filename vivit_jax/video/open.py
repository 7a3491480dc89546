"""Opening a video, however it is kept."""

import os

from vivit_jax.video.frame_reader import FrameReader, VideoError
from vivit_jax.video.image_reader import open_frames
from vivit_jax.video.limits import Limits
from vivit_jax.video.video_reader import VideoReader

__all__ = ['open_video']


def open_video(
    source: str | os.PathLike | bytes,
    *,
    name: str | None = None,
    start_sec: float | None = None,
    end_sec: float | None = None,
    start_frame: int | None = None,
    num_frames: int | None = None,
    limits: Limits = Limits(),
) -> FrameReader:
    """Opens a video file, its bytes, or a folder of frames.

    Args:
        source: path, or the encoded bytes.
        name: what messages call the video; by default the path.
        start_sec, end_sec: part of a file, see `VideoReader`.
        start_frame, num_frames: part of a folder, see `open_frames`.
        limits: what the video may have at most.

    Raises:
        VideoError: the video cannot be used, or the part of a file is given in frames, or the part
            of a folder in seconds.
    """
    seconds = {'start_sec': start_sec, 'end_sec': end_sec}
    frames = {'start_frame': start_frame, 'num_frames': num_frames}
    is_folder = not isinstance(source, bytes) and os.path.isdir(source)
    part, other = (frames, seconds) if is_folder else (seconds, frames)
    unfit = [f'{key}={value}' for key, value in other.items() if value is not None]
    if unfit:
        kind = 'a folder of frames, which have no times' if is_folder else 'no folder of frames'
        raise VideoError(f'{name or source}: is {kind}: {", ".join(unfit)} cannot be used')
    return (open_frames if is_folder else VideoReader)(source, name=name, limits=limits, **part)
