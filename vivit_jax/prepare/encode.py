"""The encoded bytes of a video: as they are, encoded anew, or put together from images."""

import dataclasses
import io
import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from vivit_jax.batches.sources import VideoSource
from vivit_jax.errors import UserError
from vivit_jax.video.crops import Crops, resize_short_side
from vivit_jax.video.frame_reader import DECODE_ERRORS, FrameReader, VideoError, reason
from vivit_jax.video.image_reader import IMAGES_PER_SEC, ImageReader

_TICKS = 90_000  # of a second: divides the usual frame rates, and errs 6 µs at most elsewhere
_GOP = 12
_CHUNK_BYTES = 2**28  # of pixels that are decoded at a time
_MAX_BYTES = 2**31 - 2**16  # protocol buffers hold 2 GB

# Images that can be packets of a video as they are, by their start: FFmpeg's name of their format,
# and the container for them.
_IMAGES = {b'\xff\xd8': ('jpeg_pipe', 'matroska'), b'\x89P': ('png_pipe', 'mov')}


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How videos become the bytes of records.

    Attributes:
        short_side: pixels of the shorter side, even; larger frames are made smaller.
        gop: frames from one key frame to the next.
        crf: loss of the new encoding, from 0 (none) to 51.

    With neither of the first two, only parts of videos are encoded anew.
    """

    short_side: int | None = None
    gop: int | None = None
    crf: int = 18

    @property
    def is_new(self) -> bool:
        """Whole videos are encoded anew."""
        return bool(self.short_side or self.gop)


def encode(source: VideoSource, index: int, encoding: Encoding) -> bytes:
    """The bytes of a video, after a look whether it can be opened and decoded.

    A file stays as it is, and JPEG or PNG images become a video that holds just these, unless
    another encoding is asked for. Parts of files are always encoded anew.

    Raises:
        VideoError: it cannot be used.
    """
    row = source.videos[index]
    is_part = row.start_sec is not None or row.end_sec is not None
    if source.modality == 'depth' and (encoding.is_new or is_part):
        raise UserError(
            f'{source.name(index)}: depth cannot be encoded anew without loss: leave out '
            '--short_side, --gop and parts of videos'
        )
    with source.open_video(index, row.video_path) as video:
        if encoding.is_new or is_part:
            content = _encode_anew(video, encoding, is_part)
        elif isinstance(video, ImageReader):
            content = _join_images(video)
        else:
            video.read([0], kind=source.modality)
            content = _read_file(row.video_path)
    if len(content) > _MAX_BYTES:
        raise VideoError(f'{source.name(index)}: {len(content):,} bytes are too many for a record')
    return content


def _read_file(path: str) -> bytes:
    try:
        if os.path.getsize(path) > _MAX_BYTES:
            raise VideoError(
                f'{path}: {os.path.getsize(path):,} bytes are too many for a record: encode it '
                'anew, smaller, with --short_side'
            )
        return Path(path).read_bytes()
    except OSError as error:
        raise VideoError(f'{path}: {reason(error)}') from error


def _encode_anew(video: FrameReader, encoding: Encoding, is_part: bool) -> bytes:
    """H.264 in MP4 with the frames of a video at their times; the times of a part start at 0."""
    times = video.timestamps_sec
    # Players and readers drop frames that are shown before 0.
    ticks = np.round((times - (times[0] if is_part else min(times[0], 0))) * _TICKS).astype(int)
    crops = _resized(encoding.short_side)
    _, height, width, _ = video.read([0], crops)[0].shape
    chunk = max(1, _CHUNK_BYTES // (3 * height * width))
    file = io.BytesIO()
    try:
        with av.open(file, 'w', 'mp4', options=_MP4_OPTIONS) as container:
            stream = _add_h264(container, encoding, height, width, times)
            for start in range(0, len(video), chunk):
                places = range(start, min(start + chunk, len(video)))
                for place, pixels in zip(places, video.read(places, crops)[0], strict=True):
                    frame = av.VideoFrame.from_ndarray(pixels, format='rgb24')
                    frame.pts, frame.time_base = ticks[place].item(), Fraction(1, _TICKS)
                    container.mux(stream.encode(frame))
            container.mux(stream.encode())
    except DECODE_ERRORS as error:
        if isinstance(error, VideoError):
            raise
        raise VideoError(f'{video.name}: cannot be encoded anew ({reason(error)})') from error
    return file.getvalue()


# Of the stream, and of the file, whose start would be rounded to milliseconds.
_MP4_OPTIONS = {'video_track_timescale': str(_TICKS), 'movie_timescale': str(_TICKS)}


def _resized(short_side: int | None):
    def crops(height: int, width: int) -> Crops:
        if short_side and min(height, width) > short_side:
            height, width = resize_short_side(height, width, short_side)
        height, width = (max(2, 2 * round(size / 2)) for size in (height, width))
        return Crops(height, width, ((0, 0),), (height, width))

    return crops


def _add_h264(
    container: av.container.OutputContainer,
    encoding: Encoding,
    height: int,
    width: int,
    times: np.ndarray,
) -> av.VideoStream:
    options = {
        'crf': str(encoding.crf),
        'preset': 'veryfast',  # of the default's size, in half the time, for 1 dB
        'g': str(encoding.gop or _GOP),
        'sc_threshold': '0',  # no other key frames
        'threads': '1',  # the cores are better used by other videos
    }
    duration = times[-1] - times[0]
    rate = (len(times) - 1) / duration if duration > 0 else IMAGES_PER_SEC
    rate = Fraction(min(max(rate, 1), 1000)).limit_denominator(1001)
    stream = container.add_stream('libx264', rate=rate, options=options)
    stream.height, stream.width, stream.pix_fmt = height, width, 'yuv420p'
    stream.codec_context.time_base = Fraction(1, _TICKS)
    return stream


def _join_images(video: ImageReader) -> bytes:
    """A video whose packets are the encoded images."""
    video.read([0, len(video) - 1])
    images = [video.read_encoded(place) for place in range(len(video))]
    file = io.BytesIO()
    image_format, container_format = _IMAGES[images[0][:2]]
    # The first image says what the codec and the size are. `bitexact` leaves a random number out.
    with (
        av.open(io.BytesIO(images[0]), format=image_format) as first,
        av.open(file, 'w', container_format, options={'fflags': 'bitexact'}) as container,
    ):
        stream = container.add_stream_from_template(first.streams.video[0])
        for place, image in enumerate(images):
            packet = av.Packet(image)
            packet.stream, packet.is_keyframe = stream, True
            packet.time_base = Fraction(1, IMAGES_PER_SEC)
            packet.pts = packet.dts = place
            packet.duration = 1
            container.mux(packet)
    return file.getvalue()
