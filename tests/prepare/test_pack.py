import csv
import hashlib
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader
from PIL import Image
from tensorflow_datasets.proto.tf_example_generated_pb2 import Example

from vivit_jax.annotations.dataset import Dataset, LabeledVideo
from vivit_jax.batches.load_dataset import load_dataset
from vivit_jax.batches.sources import VideoFiles
from vivit_jax.config.schema import default_config
from vivit_jax.errors import UserError
from vivit_jax.prepare.encode import Encoding
from vivit_jax.prepare.pack import pack, verify
from vivit_jax.prepare.plan import make_plan
from vivit_jax.prepare.workers import Died
from vivit_jax.video.synthetic import write_video

CLASSES = {'verb': ('take', 'put'), 'noun': ('plate', 'cup, red', 'ü')}
SKIPPED = ('b/cut.mp4', 'gone.mp4')


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """Seven videos of train and two of val; two of them are broken, one is images, one a part."""
    folder = tmp_path_factory.mktemp('videos')
    rng = np.random.default_rng(0)
    for name in ('a', 'b', 'v', 'b/frames'):
        (folder / name).mkdir()
    for name in ('a/0.mp4', 'a/ü 1.mp4', 'b/2.mp4', 'v/3.mp4', 'v/4.mp4'):
        write_video(folder / name, rng.integers(0, 256, (10, 32, 40, 3), np.uint8))
    for index in range(4):
        Image.new('RGB', (40, 32), (60 * index, 90, 90)).save(folder / f'b/frames/{index}.jpg')
    (folder / 'b/cut.mp4').write_bytes((folder / 'b/2.mp4').read_bytes()[:-1000])
    return folder


def _videos(folder):
    def row(name, index, **part):
        return LabeledVideo(str(folder / name), {'verb': index % 2, 'noun': index % 3}, **part)

    names = ('a/0.mp4', 'a/ü 1.mp4', 'b/cut.mp4', 'b/2.mp4', 'gone.mp4', 'b/frames')
    train = [row(name, index) for index, name in enumerate(names)]
    train.append(row('v/3.mp4', 6, start_sec=0.25, end_sec=0.5))
    val = [row('v/4.mp4', 1), row('v/3.mp4', 2)]
    return Dataset({'train': VideoFiles(train), 'val': VideoFiles(val)}, CLASSES)


def _plan(made, output, encoding=Encoding(), **options):
    options = {'num_shards': 3, **options}
    return make_plan(
        _videos(made), output, name='mine', encoding=encoding, label_columns=CLASSES, **options
    )


def _pack(made, output, num_workers=2, max_bad_fraction=0.5, **options):
    plan = _plan(made, output, **options)
    return plan, pack(plan, max_bad_fraction=max_bad_fraction, num_workers=num_workers)


@pytest.fixture(scope='module')
def packed(made, tmp_path_factory):
    output = tmp_path_factory.mktemp('packed')
    plan, totals = _pack(made, output)
    assert totals[:3] == (7, 2, 5)
    assert totals.written_shards == 5
    assert totals.written_bytes == totals.bytes
    return plan.folder


@pytest.fixture
def copy(packed, tmp_path):
    """Of the whole output folder."""
    shutil.copytree(packed.parent, tmp_path / 'mine')
    return tmp_path


def _records(folder, split):
    for path in sorted(folder.glob(f'*-{split}.array_record-*')):
        reader = ArrayRecordReader(str(path))
        for record in reader.read_all():
            features = Example.FromString(record).features.feature
            yield {
                'video': features['video'].bytes_list.value[0],
                'id': features['id'].bytes_list.value[0].decode(),
                **{name: features[name].int64_list.value[0] for name in CLASSES},
            }


def _shards(folder):
    paths = sorted(folder.glob('[!.]*.array_record-*'))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def _rows(path):
    with path.open(newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def test_records_hold_the_files_in_order(packed, made):
    found = list(_records(packed, 'train'))
    whole = ['a/0.mp4', 'a/ü 1.mp4', 'b/2.mp4']
    assert [record['id'] for record in found] == [*whole, 'b/frames', 'v/3.mp4:0.25-0.5']
    assert [record['video'] for record in found[:3]] == [
        (made / name).read_bytes() for name in whole
    ]
    labels = [(record['verb'], record['noun']) for record in found]
    assert labels == [(0, 0), (1, 1), (1, 0), (1, 2), (0, 0)]


def test_row_of_the_csv_tells_of_the_record_of_its_place(packed):
    for split in ('train', 'val'):
        rows, records = _rows(packed / f'{split}.csv'), list(_records(packed, split))
        assert [row['video_path'] for row in rows] == [record['id'] for record in records]
        for name, classes in CLASSES.items():
            expected = [classes[record[name]] for record in records]
            assert [row[name] for row in rows] == expected


def test_skipped_videos_are_listed_with_their_shard(packed):
    rows = _rows(packed / 'skipped.csv')
    assert [(row['split'], row['video_path']) for row in rows] == [
        ('train', name) for name in SKIPPED
    ]
    assert 'not a video file, or damaged' in rows[0]['reason']
    assert rows[1]['reason'].endswith('gone.mp4: no such file')
    assert rows[0]['shard'] == 'mine-train.array_record-00001-of-00003'


def test_manifest_has_the_hashes_of_files_videos_and_ids(packed):
    for name, sha256 in _shards(packed).items():
        entry = json.loads((packed / 'manifest' / f'{name}.json').read_text())
        assert entry['sha256'] == sha256
        assert entry['bytes'] == (packed / name).stat().st_size
        ids = '\n'.join(video['id'] for video in entry['videos'])
        assert entry['ids_sha256'] == hashlib.sha256(ids.encode()).hexdigest()
        assert entry['records'] == len(entry['videos'])
    (first,) = (video for video in entry['videos'] if video['id'] == 'v/3.mp4')
    (record,) = (record for record in _records(packed, 'val') if record['id'] == 'v/3.mp4')
    assert first['sha256'] == hashlib.sha256(record['video']).hexdigest()


def test_tfds_reads_what_was_written_without_tensorflow(packed):
    script = """
import json, sys
import tensorflow_datasets as tfds
folder, output = sys.argv[1:]
sources = [
    tfds.builder_from_directory(folder).as_data_source('train'),
    tfds.data_source('mine', split='train', data_dir=output),
    tfds.builder('mine', data_dir=output).as_data_source('val'),
    tfds.builder_from_directory(folder).as_data_source('train[3:]'),
]
found = [
    [{k: v.hex() if isinstance(v, bytes) else int(v) for k, v in x.items()} for x in source]
    for source in sources
]
info = tfds.builder_from_directory(folder).info
names = {name: info.features[name].names for name in ('verb', 'noun')}
print(json.dumps([found, names, 'tensorflow' in sys.modules]))
"""
    command = [sys.executable, '-c', script, packed, packed.parents[1]]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found, names, has_tensorflow = json.loads(done.stdout.splitlines()[-1])
    expected = {
        split: [
            {**record, 'video': record['video'].hex(), 'id': record['id'].encode().hex()}
            for record in _records(packed, split)
        ]
        for split in ('train', 'val')
    }
    assert found == [expected['train'], expected['train'], expected['val'], expected['train'][3:]]
    assert names == {name: list(classes) for name, classes in CLASSES.items()}
    assert not has_tensorflow


def test_library_reads_what_was_written(packed, made):
    data = default_config().data
    data.update(source='records', root=str(packed), label_columns=tuple(CLASSES))
    videos = load_dataset(data)
    assert videos.label_names == CLASSES  # in their own order
    old, new = _videos(made).splits['val'], videos.splits['val']
    for index in range(2):
        assert new.label(index) == old.label(index)
        with new.open(index) as record, old.open(index) as file:
            expected = file.read([0, 9])['rgb']
            np.testing.assert_array_equal(record.read([0, 9])['rgb'], expected)


def test_output_does_not_depend_on_the_number_of_workers(packed, made, tmp_path):
    plan, _ = _pack(made, tmp_path, num_workers=1)
    assert _shards(plan.folder) == _shards(packed)
    for name in ('train.csv', 'val.csv', 'skipped.csv', 'settings.json', 'dataset_info.json'):
        assert (plan.folder / name).read_bytes() == (packed / name).read_bytes()


def test_second_call_writes_no_shard(copy, made):
    folder = copy / 'mine' / '1.0.0'
    times = {path.name: path.stat().st_mtime_ns for path in folder.glob('[!.]*.array_record-*')}
    before = _shards(folder)
    plan, totals = _pack(made, copy)
    assert totals[:3] == (7, 2, 5)
    assert (totals.written_shards, totals.written_bytes) == (0, 0)
    assert plan.folder == folder
    assert _shards(folder) == before
    assert times == {p.name: p.stat().st_mtime_ns for p in folder.glob('[!.]*.array_record-*')}
    assert verify(plan, num_workers=1) == {}


def test_damage_is_found_by_verify_and_mended_by_packing_again(copy, made):
    folder = copy / 'mine' / '1.0.0'
    before = _shards(folder)
    flipped = folder / 'mine-train.array_record-00001-of-00003'
    content = bytearray(flipped.read_bytes())
    with flipped.open('rb') as file:
        place = file.read().index(b'ftyp') + 400
    content[place] ^= 255
    flipped.write_bytes(content)
    cut = folder / 'mine-val.array_record-00000-of-00002'
    cut.write_bytes(cut.read_bytes()[:-1])
    renamed = folder / 'manifest' / 'mine-val.array_record-00001-of-00002.json'
    renamed.write_text(renamed.read_text().replace('"ids_sha256": "', '"ids_sha256": "0'))
    damaged = verify(_plan(made, copy), num_workers=2)
    assert set(damaged) == {flipped, cut, folder / 'mine-val.array_record-00001-of-00002'}
    for path in damaged:
        path.unlink()
    _, totals = _pack(made, copy)
    assert totals.written_shards == 3
    assert _shards(folder) == before


def test_shards_of_another_size_are_packed_again(copy, made):
    path = copy / 'mine' / '1.0.0' / 'mine-val.array_record-00000-of-00002'
    before = path.read_bytes()
    path.write_bytes(before[:-1])
    assert _pack(made, copy)[1].written_shards == 1
    assert path.read_bytes() == before


def test_killed_run_goes_on_with_the_shards_it_finished(packed, made, tmp_path):
    script = """
import os, runpy, sys
tests = runpy.run_path(sys.argv[1])
from pathlib import Path
from vivit_jax.prepare import pack

write_all = pack._write_all

def until_the_second(*args):
    for place, found in enumerate(write_all(*args)):
        if place == 1:
            os.kill(os.getpid(), 9)
        yield found

pack._write_all = until_the_second
tests['_pack'](Path(sys.argv[2]), Path(sys.argv[3]), num_workers=1)
"""
    command = [sys.executable, '-c', script, __file__, made, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == -9, done.stderr
    folder = tmp_path / 'mine' / '1.0.0'
    assert not (folder / 'train.csv').exists()
    entries = sorted(path.stem for path in (folder / 'manifest').iterdir())
    assert 2 <= len(entries) < 5
    kept = {name: (folder / name).stat().st_mtime_ns for name in entries[:2]}
    _, totals = _pack(made, tmp_path)
    assert 1 <= totals.written_shards <= 3
    assert {name: (folder / name).stat().st_mtime_ns for name in kept} == kept
    assert _shards(folder) == _shards(packed)
    assert not list(folder.glob('.*unfinished'))


def test_too_many_unusable_videos_stop_but_keep_what_is_finished(made, tmp_path):
    with pytest.raises(UserError, match=r'1 of 7 videos of the train .*max_bad_fraction=0 '):
        _pack(made, tmp_path, max_bad_fraction=0, num_workers=1)
    folder = tmp_path / 'mine' / '1.0.0'
    assert not (folder / 'dataset_info.json').exists()
    assert len(_shards(folder)) >= 2
    assert _pack(made, tmp_path)[1].videos == 7


def test_splits_packed_one_by_one_end_like_all_at_once(packed, made, tmp_path):
    _pack(made, tmp_path, split='val')
    folder = tmp_path / 'mine' / '1.0.0'
    assert list(json.loads((folder / 'dataset_info.json').read_text())['splits'])
    assert not (folder / 'train.csv').exists()
    _pack(made, tmp_path, split='train')
    assert (folder / 'dataset_info.json').read_bytes() == (
        packed / 'dataset_info.json'
    ).read_bytes()
    assert _shards(folder) == _shards(packed)


def test_video_that_kills_its_process_is_skipped(made, tmp_path, monkeypatch):
    def dies_of_the_second(function, tasks, num_workers):
        for place, shard in enumerate(tasks):
            for value in function(shard):
                yield place, value
                if value == 1 and shard.split == 'train' and not shard.died:
                    yield place, Died('the process that read it died (SIGSEGV)')
                    break

    monkeypatch.setattr('vivit_jax.prepare.pack.run_tasks', dies_of_the_second)
    plan, totals = _pack(made, tmp_path)
    assert totals.skipped == 3
    row = _rows(plan.folder / 'skipped.csv')[0]
    assert row['video_path'] == 'a/ü 1.mp4'
    assert row['reason'].endswith('a/ü 1.mp4: the process that read it died (SIGSEGV)')


@pytest.mark.parametrize('record', [b'', None])
def test_other_records_than_meant_are_an_error(made, tmp_path, monkeypatch, record):
    def serialize(content, video_id, labels):
        example = Example()
        example.features.feature['video'].bytes_list.value.append(content[:-1] + b'?')
        example.features.feature['id'].bytes_list.value.append(video_id.encode())
        return example.SerializeToString() if record is None else record

    def in_turn(function, tasks, num_workers):
        return ((i, value) for i, task in enumerate(tasks) for value in function(task))

    monkeypatch.setattr('vivit_jax.prepare.shards._serialize', serialize)
    monkeypatch.setattr('vivit_jax.prepare.pack.run_tasks', in_turn)
    with pytest.raises(UserError, match=r'unfinished: .*: is the disk full or damaged\?'):
        _pack(made, tmp_path)
    assert not _shards(tmp_path / 'mine' / '1.0.0')
