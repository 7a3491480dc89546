"""Videos kept as images, one for each frame: folders of frames, or encoded images in memory."""

import collections
import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np

from vivit_jax.video.files import check_file
from vivit_jax.video.frame_reader import DECODE_ERRORS, FrameReader, VideoError, reason
from vivit_jax.video.limits import Limits

_CODECS = {b'\xff\xd8': 'mjpeg', b'\x89PNG': 'png'}  # by the first bytes
_IMAGE = re.compile(r'(?!\.)(?P<prefix>.*?)(?P<number>\d+)(?P<suffix>\.(jpg|jpeg|png))', re.I)
IMAGES_PER_SEC = 25  # the usual rate of the videos that such images come from
_OTHER_KINDS = ('flow', 'thumb')


class ImageReader(FrameReader):
    """Encoded images of one size as a video; only those asked for are read.

    Attributes:
        images: in their order, JPEG or PNG: paths, or the encoded bytes.
        name: what messages call the video.
        limits: what the video may have at most.

    Raises:
        VideoError: there are none, or too many.
    """

    def __init__(
        self, images: Sequence[str | os.PathLike | bytes], name: str, limits: Limits = Limits()
    ):
        self.name = name
        self.limits = limits
        self.images = images
        self._contexts = {}
        self._size = None
        if not len(images):
            raise VideoError(f'{name}: has no frames')
        self._check_length(len(images), (len(images) - 1) / IMAGES_PER_SEC)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def timestamps_sec(self) -> np.ndarray:
        """Times at `IMAGES_PER_SEC`, as images carry none of their own."""
        return np.arange(len(self)) / IMAGES_PER_SEC

    def close(self):
        self._contexts.clear()

    def read_encoded(self, place: int) -> bytes:
        """The encoded bytes of an image.

        Raises:
            VideoError: it is no regular file.
            OSError: it cannot be read.
        """
        image = self.images[place]
        if isinstance(image, bytes):
            return image
        check_file(image, str(image))
        return Path(image).read_bytes()

    def _decode(self, places: Sequence[int]) -> Iterator[tuple[int, av.VideoFrame]]:
        for place in places:
            image = self.images[place]
            where = f'{self.name}, frame {place}' if isinstance(image, bytes) else str(image)
            content = b''
            try:
                content = self.read_encoded(place)
                frame = self._decode_image(content)
            except VideoError:
                raise
            except DECODE_ERRORS as error:
                if problem := self.limits.describe_size(*_announced_size(content)):
                    raise VideoError(f'{where}: {problem}') from error
                raise VideoError(
                    f'{where}: damaged, or no JPEG or PNG ({reason(error)})'
                ) from error
            size = (frame.height, frame.width)
            self._size = self._size or size
            if size != self._size:
                raise VideoError(
                    f'{where}: has {size[0]} x {size[1]} pixels, but frames before it have '
                    f'{self._size[0]} x {self._size[1]}: all frames of a video must be alike'
                )
            yield place, frame

    def _decode_image(self, content: bytes) -> av.VideoFrame:
        codec = next((name for start, name in _CODECS.items() if content.startswith(start)), None)
        if codec is None:
            raise ValueError(f'its {len(content)} bytes start with {content[:4]!r}')
        if codec not in self._contexts:
            context = av.CodecContext.create(codec, 'r')
            context.options = {'err_detect': 'explode', **self.limits.decoder_options}
            context.thread_type = 'NONE'  # a frame for each packet, at once
            self._contexts[codec] = context
        packet = av.Packet(content)
        packet.is_keyframe = True  # else a PNG counts as the difference to the one before
        frames = self._contexts[codec].decode(packet)
        if not frames or frames[0].is_corrupt:
            raise ValueError('it ends too early')
        return frames[0]


def _announced_size(image: bytes) -> tuple[int, int]:
    """(height, width) in pixels that the header of a PNG or JPEG tells; (0, 0) if it does not."""
    if image.startswith(b'\x89PNG'):
        width, height = int.from_bytes(image[16:20], 'big'), int.from_bytes(image[20:24], 'big')
        return height, width
    context = av.CodecContext.create('mjpeg', 'r')
    context.skip_frame = 'ALL'
    with contextlib.suppress(*DECODE_ERRORS):
        context.decode(av.Packet(image))
    return context.height, context.width


def open_frames(
    folder: str | os.PathLike,
    *,
    name: str | None = None,
    start_frame: int | None = None,
    num_frames: int | None = None,
    limits: Limits = Limits(),
) -> ImageReader:
    """Opens a folder of frames such as `00001.jpg` or `img_00001.png`, ordered by their numbers.

    Files without a number, hidden ones and those called `flow…` or `thumb…` are left out.

    Args:
        folder: path.
        name: what messages call it; by default its path.
        start_frame: place of the first frame, counted from 0 whatever the files' numbers.
        num_frames: how many; by default all that follow.
        limits: what the video may have at most.

    Raises:
        VideoError: there are no images, fewer than asked for, or several kinds of them.
    """
    name = name or str(folder)
    images = _list_images(folder, name)
    start = start_frame or 0
    end = len(images) if num_frames is None else start + num_frames
    if start < 0 or not start < end <= len(images):
        expected = f'from {start} on' if num_frames is None else f'{start} … {end - 1}'
        raise VideoError(
            f'{name}: found {len(images)} frames, but expected frames {expected}, counted from 0'
        )
    return ImageReader(images[start:end], name, limits)


def is_frame(name: str) -> bool:
    """Whether a file of that name is a frame, as `open_frames` finds them in a folder."""
    return _match_frame(name) is not None


def _match_frame(name: str) -> re.Match | None:
    match = _IMAGE.fullmatch(name)
    return match if match and not match['prefix'].lower().startswith(_OTHER_KINDS) else None


def _list_images(folder: str | os.PathLike, name: str) -> list[str]:
    try:
        files = os.listdir(folder)
    except OSError as error:
        raise VideoError(f'{name}: no folder of frames ({reason(error)})') from error
    kinds = collections.defaultdict(list)
    for match in filter(None, map(_match_frame, files)):
        kinds[f'{match["prefix"]}#{match["suffix"]}'].append((int(match['number']), match.string))
    if not kinds:
        raise VideoError(
            f'{name}: has no frames: none of its {len(files)} files is called like img_00001.jpg, '
            '00001.jpg or 00001.png'
        )
    if len(kinds) > 1:
        found = ', '.join(f'{kind} ({len(images)})' for kind, images in sorted(kinds.items()))
        raise VideoError(f'{name}: holds several kinds of images: {found}; keep those of one kind')
    (images,) = kinds.values()
    return [os.path.join(folder, file) for _, file in sorted(images)]
