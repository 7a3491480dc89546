"""Videos packed into the ArrayRecord shards that `python -m vivit_jax.prepare` writes."""

import dataclasses
import functools
import os
import re
from typing import TYPE_CHECKING

from vivit_jax.batches.sources import VideoSource
from vivit_jax.errors import UserError
from vivit_jax.video.frame_reader import VideoError, reason
from vivit_jax.video.video_reader import VideoReader

if TYPE_CHECKING:
    from array_record.python.array_record_data_source import ArrayRecordDataSource

_SHARD = re.compile(r'(?P<base>.+)-\d{5}-of-(?P<count>\d{5})')


@dataclasses.dataclass(frozen=True)
class ArrayRecords(VideoSource):
    """Encoded videos in ArrayRecord shards, each a `tf.train.Example` with its bytes and id.

    Attributes:
        videos: of every record in order; `video_path` is its id.
        shards: their paths in order.

    Raises:
        UserError: a shard cannot be read, or there are more or fewer records than videos.
    """

    shards: tuple[str, ...]

    def __post_init__(self):
        if len(self._records) != len(self.videos):
            raise UserError(
                f'{self.shards[0]} and the other shards hold {len(self._records)} records, but the '
                f'CSV file of the split lists {len(self.videos)}: they belong to different runs; '
                'pack the videos again'
            )

    def open_video(self, index: int, path: str) -> VideoReader:
        from tensorflow_datasets.proto.tf_example_generated_pb2 import Example  # 45 MB

        name = self.name(index)
        try:
            features = Example.FromString(self._records[index]).features.feature
            (video,) = features['video'].bytes_list.value
            (record_id,) = features['id'].bytes_list.value
        except Exception as error:  # the libraries have no common class for damage
            raise VideoError(f'{name}: record {index} is damaged ({reason(error)})') from error
        if record_id != name.encode():
            raise VideoError(
                f'{name}: record {index} is {record_id.decode(errors="replace")!r}: the CSV file '
                'does not belong to the shards'
            )
        row = self.videos[index]
        return VideoReader(
            video, name=name, start_sec=row.start_sec, end_sec=row.end_sec, limits=self.limits
        )

    @functools.cached_property
    def _records(self) -> 'ArrayRecordDataSource':
        """Opens a shard when one of its records is wanted, in each process again."""
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        try:
            return ArrayRecordDataSource(self.shards)
        except Exception as error:  # as above
            raise UserError(f'{self.shards[0]} or another shard: {reason(error)}') from error


def find_shards(folder: str | os.PathLike, split: str) -> tuple[str, ...]:
    """Paths of a split's shards `<name>-<split>.array_record-00000-of-00004`, in order.

    Raises:
        UserError: there are none, some are missing, or there are several sets.
    """
    try:
        files = sorted(os.listdir(folder))
    except OSError as error:
        raise UserError(f'{folder}: no folder of records ({reason(error)})') from error
    sets = {match.groups() for match in map(_SHARD.fullmatch, files) if match}
    ours = sorted(found for found in sets if found[0].endswith(f'-{split}.array_record'))
    if not ours:
        others = sorted({base for base, _ in sets}) or 'no shards at all'
        raise UserError(
            f'{folder}: no files like <name>-{split}.array_record-00000-of-00004; it has {others}. '
            'It should be the folder of a version, such as my_videos/1.0.0'
        )
    if len(ours) > 1:
        found = ' and '.join(f'{base}-…-of-{count}' for base, count in ours)
        raise UserError(f'{folder}: has {found}: keep one set of shards')
    base, count = ours[0]
    return shard_paths(os.path.join(folder, base), int(count))


def shard_paths(base: str, count: int) -> tuple[str, ...]:
    """The paths `<base>-00000-of-<count>` …, all of which must exist.

    Raises:
        UserError: some do not.
    """
    paths = tuple(f'{base}-{index:05d}-of-{count:05d}' for index in range(count))
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise UserError(
            f'{len(missing)} of {count} shards do not exist, such as {missing[0]}; copy them all'
        )
    return paths
