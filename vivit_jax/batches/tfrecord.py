"""Videos in the TFRecord files of the original ViViT and of DMVR, read without TensorFlow.

Each record is a `tf.train.SequenceExample`: `clip/label/text` in its context, and a JPEG for each
frame in the feature list `image/encoded`. The class numbers in `clip/label/index` differ between
runs of the public generator, so they are never used.
"""

import dataclasses
import difflib
import logging
import os
import re
import struct
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

import numpy as np

from vivit_jax.annotations.dataset import LabeledVideo
from vivit_jax.batches.array_record import shard_paths
from vivit_jax.batches.sources import VideoSource
from vivit_jax.errors import UserError
from vivit_jax.video.frame_reader import VideoError, reason
from vivit_jax.video.image_reader import ImageReader
from vivit_jax.video.limits import Limits

_log = logging.getLogger(__name__)

_TEXT = 'clip/label/text'
_FRAMES = 'image/encoded'
_USUAL_FRAMES = 250  # 10 s at 25 frames per second, as the published configs count on
_HEADER = struct.Struct('<QI')  # bytes of data, and the checksum of this number
_CHECKSUM_BYTES = 4  # after the data
_CONTEXT_BYTES = 4096  # read at first; labels and names take less
_THREADS = 16


@dataclasses.dataclass(frozen=True)
class TfRecords(VideoSource):
    """Videos in TFRecord files.

    Attributes:
        videos: of every record; `video_path` is the name of the video, or else its place.
        files: the paths.
        places: file, first byte and bytes of every record, int64 [records 3].
    """

    files: tuple[str, ...]
    places: np.ndarray

    def open_video(self, index: int, path: str) -> ImageReader:
        name = self.name(index)
        file, start, size = self.places[index].tolist()
        try:
            with open(self.files[file], 'rb') as data:
                data.seek(start)
                example = _parse(data.read(size))
        except (OSError, ValueError) as error:
            raise VideoError(
                f'{name}: record at byte {start} of {self.files[file]} is damaged ({reason(error)})'
            ) from error
        frames = example.feature_lists.feature_list[_FRAMES].feature
        images = [b''.join(frame.bytes_list.value) for frame in frames]
        return ImageReader(images, name, self.limits)


def load_tfrecords(
    pattern: str, label_names: Sequence[str], limits: Limits = Limits()
) -> TfRecords:
    """Lists the records of TFRecord files, and their labels.

    Args:
        pattern: a file, a folder, `train.tfrecord@1024`, or a shard
            `train.tfrecord-00000-of-01024`, which stands for all.
        label_names: the classes in order, as `clip/label/text` calls them.
        limits: what a video may have at most.

    Raises:
        UserError: files are missing or damaged, or labels are not among the classes.
    """
    files = find_tfrecords(pattern)
    classes = {name: index for index, name in enumerate(label_names)}
    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(lambda path: list(_list_records(path, classes)), files))
    videos = [video for records in found for video, _, _ in records]
    places = [
        (file, start, size) for file, records in enumerate(found) for _, start, size in records
    ]
    if not videos:
        raise UserError(f'{pattern}: its {len(files)} files hold no records')
    _log.info('%s: %d records in %d files', pattern, len(videos), len(files))
    source = TfRecords(videos, files, np.array(places, np.int64), limits=limits)
    with source.open_video(0, '') as video:
        if not _USUAL_FRAMES / 2 <= len(video) <= 2 * _USUAL_FRAMES:
            _log.warning(
                '%s has %d frames. The published configs count on %d, 10 s at 25 per second, but '
                "DMVR's generator takes 10 per second: choose the frame stride accordingly",
                video.name,
                len(video),
                _USUAL_FRAMES,
            )
    return source


def find_tfrecords(pattern: str) -> tuple[str, ...]:
    """Paths of the files that `load_tfrecords` reads.

    Raises:
        UserError: there are none, or some shards are missing.
    """
    if os.path.isdir(pattern):
        names = [os.path.join(pattern, name) for name in os.listdir(pattern)]
        names = [name for name in names if '.tfrecord' in os.path.basename(name)]
        if not names:
            raise UserError(f'{pattern}: no file in this folder has .tfrecord in its name')
    else:
        names = [pattern]
    files = set()
    for name in names:
        shards = re.fullmatch(r'(.+)@(\d+)', name) or re.fullmatch(r'(.+)-\d+-of-(\d{5})', name)
        if shards:
            files.update(shard_paths(shards[1], int(shards[2])))
        elif os.path.isfile(name):
            files.add(name)
        else:
            raise UserError(f'{name}: no such file; several shards are named train.tfrecord@1024')
    return tuple(sorted(files))


def _list_records(path: str, classes: dict[str, int]) -> Iterator[tuple[LabeledVideo, int, int]]:
    """Video, first byte and bytes of every record, from no more than the records' contexts."""
    length = os.path.getsize(path)
    with open(path, 'rb') as file:
        end = 0
        while end < length:
            file.seek(end)
            header = file.read(_HEADER.size)
            start = end + _HEADER.size
            size, checksum = _HEADER.unpack(header) if len(header) == _HEADER.size else (0, -1)
            end = start + size + _CHECKSUM_BYTES
            if checksum != _masked_crc32c(header[:8]) or end > length:
                raise UserError(
                    f'{path}: is no TFRecord file, or damaged, at byte {start - _HEADER.size} of '
                    f'{length}; copy it again'
                )
            place = f'{path}, record at byte {start}'
            try:
                context = _read_context(file, size)
            except ValueError as error:
                raise UserError(f'{place}: is no SequenceExample ({reason(error)})') from error
            yield _video(context, place, classes), start, size


def _read_context(file: BinaryIO, size: int):
    """The context alone, where it comes first as usual: the frames are not read."""
    data = file.read(min(size, _CONTEXT_BYTES))
    end = _context_end(data)
    if not 0 < end <= size:
        end = size
    data += file.read(max(0, end - len(data)))
    return _parse(data[:end]).context.feature


def _context_end(data: bytes) -> int:
    """Where field 1 of the message ends, or 0 where another comes first."""
    length = 0
    for place, byte in enumerate(data[1:11] if data[:1] == b'\x0a' else b''):
        length |= (byte & 127) << 7 * place  # seven bits a byte, the lowest first
        if byte < 128:
            return 2 + place + length
    return 0


def _video(context, place: str, classes: dict[str, int]) -> LabeledVideo:
    texts = context[_TEXT].bytes_list.value if _TEXT in context else []
    if len(texts) != 1:
        raise UserError(
            f'{place}: has {len(texts)} labels in {_TEXT!r}; its context has {sorted(context)}. '
            'Records with several labels, or with vectors for verb and noun as EPIC-KITCHENS has '
            'in this format, are not read: use the video files'
        )
    text = texts[0].decode(errors='replace')
    if text not in classes:
        near = difflib.get_close_matches(text, classes, n=1)
        raise UserError(
            f'{place}: label {text!r} is none of the {len(classes)} classes'
            f'{f"; did you mean {near[0]!r}?" if near else ""}. Give the list of classes of this '
            'dataset as data.label_map'
        )
    name = b''.join(context['video/filename'].bytes_list.value).decode(errors='replace')
    return LabeledVideo(name or place, classes[text])


def _parse(data: bytes):
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto.tf_example_generated_pb2 import SequenceExample  # 45 MB

    try:
        return SequenceExample.FromString(data)
    except DecodeError as error:
        raise ValueError(str(error)) from error


def _crc32c_table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)  # Castagnoli's, reversed
        table.append(value)
    return table


_CRC32C = _crc32c_table()


def _masked_crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC32C[(crc ^ byte) & 255]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
