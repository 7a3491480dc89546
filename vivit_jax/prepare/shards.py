"""One shard of records: writing it, reading it back, and the entry that proves it."""

import dataclasses
import hashlib
import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from tensorflow_datasets.proto.tf_example_generated_pb2 import Example

from vivit_jax.annotations.dataset import class_indices
from vivit_jax.atomic_files import replace_text, replacing
from vivit_jax.batches.sources import VideoSource
from vivit_jax.errors import UserError
from vivit_jax.heads import by_head
from vivit_jax.prepare.encode import Encoding, encode
from vivit_jax.video.frame_reader import VideoError, reason

Entry = dict[str, object]


@dataclasses.dataclass(frozen=True)
class Shard:
    """Videos that follow each other in a split, and the file for them.

    Attributes:
        path: of the file.
        split: whose.
        start: index of the first video.
        ids: of all.
        died: videos, by index, that killed the process that read them, and how.
    """

    path: Path
    split: str
    start: int
    ids: tuple[str, ...]
    died: Mapping[int, str] = dataclasses.field(default_factory=dict)

    @property
    def entry_path(self) -> Path:
        """The file of the shard's entry in the manifest."""
        return self.path.parent / 'manifest' / f'{self.path.name}.json'


def write_shard(
    splits: Mapping[str, VideoSource], columns: Sequence[str], encoding: Encoding, shard: Shard
) -> Iterator[int | Entry]:
    """Writes a shard with all of its videos that can be used, and reads it back.

    Args:
        splits: the videos.
        columns: feature for the labels of each head.
        encoding: of the videos.
        shard: which of them, and where to.

    Yields:
        The index of each video before it is read, and in the end the entry: numbers of `records`
        and `bytes`, `sha256` of the file, `ids_sha256` of the ids, the `videos` with index, id and
        sha256, and those `skipped` with index, id and reason.

    Raises:
        UserError: what was read back is not what was written.
    """
    with replacing(shard.path) as unfinished:
        source = splits[shard.split]
        entry = yield from _write_videos(source, columns, encoding, shard, unfinished)
        difference = _find_difference(unfinished, entry)
        if difference:
            raise UserError(f'{unfinished}: {difference}: is the disk full or damaged?')
    replace_text(shard.entry_path, json.dumps(entry))
    yield entry


def read_entry(shard: Shard) -> Entry | None:
    """The entry of a finished shard, None where there is none or its file has another size."""
    try:
        entry = json.loads(shard.entry_path.read_text(encoding='utf-8'))
        is_whole = shard.path.stat().st_size == entry['bytes']
    except (OSError, ValueError):
        return None
    listed = sorted(entry['videos'] + entry['skipped'], key=lambda video: video['index'])
    is_same = [video['id'] for video in listed] == list(shard.ids)
    return entry if is_whole and is_same else None


def verify_shard(shard: Shard) -> Iterator[str]:
    """Compares a shard with its entry; yields what differs, empty if nothing does."""
    entry = read_entry(shard)
    if entry is None:
        yield 'its size is not that of its entry in the manifest'
    elif entry['ids_sha256'] != _hash_ids(entry['videos']):
        yield 'its entry in the manifest is damaged'
    elif difference := _find_difference(shard.path, entry):
        yield difference
    else:
        yield '' if _hash_file(shard.path) == entry['sha256'] else 'its bytes are not those written'


def _write_videos(
    source: VideoSource, columns: Sequence[str], encoding: Encoding, shard: Shard, path: Path
) -> Generator[int, None, Entry]:
    """Writes the records of a shard; gives each index before it is read, and returns the entry."""
    writer = ArrayRecordWriter(str(path), 'group_size:1')
    videos, skipped = [], []
    for index, video_id in enumerate(shard.ids, shard.start):
        yield index
        try:
            if index in shard.died:
                raise VideoError(f'{source.name(index)}: {shard.died[index]}')
            content = encode(source, index, encoding)
        except Exception as error:  # nothing that a damaged file does may end the packing
            text = (
                str(error) if isinstance(error, VideoError) else f'{source.name(index)}: {error!r}'
            )
            skipped.append({'index': index, 'id': video_id, 'reason': text})
            continue
        of_heads = by_head(source.videos[index].label).values()
        labels = dict(zip(columns, map(class_indices, of_heads), strict=True))
        writer.write(_serialize(content, video_id, labels))
        sha256 = hashlib.sha256(content).hexdigest()
        videos.append({'index': index, 'id': video_id, 'sha256': sha256})
    writer.close()
    return {
        'records': len(videos),
        'bytes': path.stat().st_size,
        'sha256': _hash_file(path),
        'ids_sha256': _hash_ids(videos),
        'videos': videos,
        'skipped': skipped,
    }


def _serialize(content: bytes, video_id: str, labels: Mapping[str, Sequence[int]]) -> bytes:
    example = Example()
    features = example.features.feature
    features['video'].bytes_list.value.append(content)
    features['id'].bytes_list.value.append(video_id.encode())
    for column, indices in labels.items():
        features[column].int64_list.value.extend(indices)
    return example.SerializeToString(deterministic=True)


def _find_difference(path: Path, entry: Entry) -> str:
    """How the records of a file differ from what its entry says."""
    videos = entry['videos']
    try:
        reader = ArrayRecordReader(str(path))
        if reader.num_records() != len(videos):
            return f'holds {reader.num_records()} records instead of {len(videos)}'
        for place, video in enumerate(videos):
            features = Example.FromString(reader.read([place])[0]).features.feature
            (content,) = features['video'].bytes_list.value
            (video_id,) = features['id'].bytes_list.value
            sha256 = hashlib.sha256(content).hexdigest()
            if (video_id.decode(), sha256) != (video['id'], video['sha256']):
                return f'record {place} is not {video["id"]} as it was packed'
        reader.close()
    except Exception as error:  # the libraries have no common class for damage
        return f'cannot be read ({reason(error)})'
    return ''


def _hash_file(path: Path) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def _hash_ids(videos: Sequence[Mapping]) -> str:
    return hashlib.sha256('\n'.join(video['id'] for video in videos).encode()).hexdigest()
