import dataclasses
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordWriter
from tensorflow_datasets.proto.tf_example_generated_pb2 import Example

from vivit_jax.annotations.dataset import LabeledVideo
from vivit_jax.batches.array_record import ArrayRecords, find_shards
from vivit_jax.errors import UserError
from vivit_jax.video.frame_reader import VideoError
from vivit_jax.video.limits import Limits
from vivit_jax.video.video_reader import VideoReader

IDS = ['a/00000', 'b 1', 'ü', 'd', 'e']


def _example(video, record_id):
    example = Example()
    example.features.feature['video'].bytes_list.value.append(video)
    example.features.feature['id'].bytes_list.value.append(record_id.encode())
    example.features.feature['label'].int64_list.value.append(1)
    return example.SerializeToString()


def _write_shards(folder, records, counts, split='train'):
    """Splits the records among as many shards as there are counts."""
    records = iter(records)
    for shard, count in enumerate(counts):
        path = folder / f'v-{split}.array_record-{shard:05d}-of-{len(counts):05d}'
        writer = ArrayRecordWriter(str(path), 'group_size:1')
        for _ in range(count):
            writer.write(next(records))
        writer.close()


@pytest.fixture
def videos(synthetic_folder):
    return [synthetic_folder / 'train' / f'{index:05d}.mp4' for index in range(len(IDS))]


@pytest.fixture
def folder(tmp_path, videos):
    folder = tmp_path / 'v' / '1.0.0'
    folder.mkdir(parents=True)
    for name in ('features.json', 'dataset_info.json', 'label.labels.txt', 'train.csv'):
        (folder / name).write_text('{}')
    records = [_example(v.read_bytes(), name) for v, name in zip(videos, IDS, strict=True)]
    _write_shards(folder, records, [2, 0, 3])
    return folder


@pytest.fixture
def rows():
    return [LabeledVideo(name, label) for label, name in enumerate(IDS)]


def test_records_read_as_their_files(folder, rows, videos):
    source = ArrayRecords(rows, find_shards(folder, 'train'))
    assert len(source) == 5
    for index in (4, 0, 2, 1, 3):
        assert source.name(index) == IDS[index]
        assert source.label(index) == index
        with source.open(index) as video, VideoReader(videos[index]) as file:
            assert video.name == IDS[index]
            np.testing.assert_array_equal(video.read([9, 0, 4])['rgb'], file.read([9, 0, 4]))
    with pytest.raises(VideoError, match=r'it has 10 frames, .* data\.limits\.max_frames allows 9'):
        dataclasses.replace(source, limits=Limits(max_frames=9)).open(0)


def test_part_of_record_is_read(folder, rows, videos):
    rows[1] = LabeledVideo(IDS[1], 0, start_sec=0.25, end_sec=0.5)
    source = ArrayRecords(rows, find_shards(folder, 'train'))
    with source.open(1) as video, VideoReader(videos[1]) as file:
        assert len(video) == 3  # 12 frames a second: those at 3/12, 4/12, 5/12
        np.testing.assert_array_equal(video.read(range(3))['rgb'], file.read(range(3, 6)))


def test_source_pickles_small_and_reads_on(folder, rows):
    source = ArrayRecords(rows, find_shards(folder, 'train'))
    with source.open(0) as video:
        expected = video.read([0])['rgb']
    pickled = pickle.dumps(source)
    assert len(pickled) < 2000
    with pickle.loads(pickled).open(0) as video:
        np.testing.assert_array_equal(video.read([0])['rgb'], expected)


def test_reading_records_imports_neither_jax_nor_tensorflow(folder):
    script = (
        'import sys\n'
        'from vivit_jax.annotations.dataset import LabeledVideo\n'
        'from vivit_jax.batches.array_record import ArrayRecords, find_shards\n'
        f'videos = [LabeledVideo(name, 0) for name in {IDS!r}]\n'
        'source = ArrayRecords(videos, find_shards(sys.argv[1], "train"))\n'
        'assert source.open(2).read([0])["rgb"].size\n'
        'assert not {"jax", "tensorflow"} & sys.modules.keys()\n'
    )
    subprocess.run([sys.executable, '-c', script, str(folder)], check=True)


@pytest.mark.parametrize('count', [4, 6])
def test_counts_unlike_the_list_raise(folder, rows, count):
    rows = [*rows, LabeledVideo('f', 0)][:count]
    with pytest.raises(UserError, match=f'hold 5 records, but the CSV .* lists {count}'):
        ArrayRecords(rows, find_shards(folder, 'train'))


def test_list_in_another_order_raises(folder, rows):
    source = ArrayRecords(rows[::-1], find_shards(folder, 'train'))
    with pytest.raises(VideoError, match="e: record 0 is 'a/00000': the CSV file does not belong"):
        source.open(0)


@pytest.mark.parametrize(
    'record',
    [b'', b'hello', _example(b'x', 'c')[:-3], Example().SerializeToString()],
    ids=['empty', 'text', 'cut', 'no-features'],
)
def test_record_that_is_no_example_raises(tmp_path, record):
    _write_shards(tmp_path, [record], [1])
    source = ArrayRecords([LabeledVideo('c', 0)], find_shards(tmp_path, 'train'))
    with pytest.raises(VideoError, match='c: record 0 is damaged'):
        source.open(0)


def test_record_without_a_video_raises(tmp_path):
    _write_shards(tmp_path, [_example(b'text' * 99, 'c')], [1])
    source = ArrayRecords([LabeledVideo('c', 0)], find_shards(tmp_path, 'train'))
    with pytest.raises(VideoError, match=r'^c: not a video file'):
        source.open(0)


def test_damaged_shard_raises_for_its_record_only(folder, rows):
    shards = find_shards(folder, 'train')
    with open(shards[0], 'r+b') as file:  # its first record comes after 64 bytes
        file.seek(200)
        file.write(bytes(50))
    source = ArrayRecords(rows, shards)
    with pytest.raises(VideoError, match='a/00000: record 0 is damaged'):
        source.open(0)
    for index in (1, 2):
        with source.open(index) as video:
            assert len(video) == 10


def test_cut_shard_raises_the_shard(folder, rows):
    shards = find_shards(folder, 'train')
    with open(shards[0], 'r+b') as file:
        file.truncate(65536)
    with pytest.raises(UserError, match=r'v-train\.array_record-00000-of-00003'):
        ArrayRecords(rows, shards)


def test_shards_of_a_split_are_found_in_order(folder):
    _write_shards(folder, [], [0], split='val')
    _write_shards(folder, [], [0] * 11, split='test')
    names = [path.rpartition('/')[2] for path in find_shards(folder, 'test')]
    assert names == [f'v-test.array_record-{index:05d}-of-00011' for index in range(11)]
    assert len(find_shards(str(folder), 'train')) == 3
    assert len(find_shards(folder, 'val')) == 1


def test_missing_shards_raise_what_is_missing(folder):
    with pytest.raises(UserError, match=r"no files like <name>-val\..*it has \['v-train\.array"):
        find_shards(folder, 'val')
    with pytest.raises(UserError, match=r'it has no shards at all\. It should be the folder of'):
        find_shards(folder.parent, 'train')
    with pytest.raises(UserError, match='absent: no folder of records'):
        find_shards(folder / 'absent', 'train')
    (folder / 'v-train.array_record-00001-of-00003').unlink()
    with pytest.raises(UserError, match=r'1 of 3 shards do not exist, such as .*-00001-of-00003'):
        find_shards(folder, 'train')


@pytest.mark.parametrize('name', ['v-train', 'w-train'])
def test_two_sets_of_shards_raise(folder, name):
    shutil.copy(
        folder / 'v-train.array_record-00000-of-00003',
        folder / f'{name}.array_record-00000-of-00001',
    )
    with pytest.raises(UserError, match='keep one set of shards'):
        find_shards(folder, 'train')
