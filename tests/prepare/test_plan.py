import itertools
import json

import numpy as np
import pytest

from vivit_jax.annotations.dataset import Dataset, LabeledVideo
from vivit_jax.batches.sources import VideoFiles
from vivit_jax.batches.tfrecord import TfRecords
from vivit_jax.errors import UserError
from vivit_jax.prepare.encode import Encoding
from vivit_jax.prepare.plan import make_plan


def _videos(**splits):
    return Dataset({split: VideoFiles(rows) for split, rows in splits.items()}, ('x', 'y'))


def _plan(folder, videos, encoding=Encoding(), **options):
    options = {'name': 'mine', 'label_columns': ('label',), **options}
    return make_plan(videos, folder, encoding=encoding, **options)


TEN = _videos(
    train=[LabeledVideo(f'/data/train/{i}.mp4', i % 2) for i in range(10)],
    val=[LabeledVideo(f'/data/val/{i}.mp4', i % 2) for i in range(3)],
)


def test_shards_hold_all_videos_in_order(tmp_path):
    plan = _plan(tmp_path, TEN, num_shards=4)
    assert plan.folder == tmp_path / 'mine' / '1.0.0'
    assert [shard.path.name for shard in plan.shards['train']] == [
        f'mine-train.array_record-{i:05d}-of-00004' for i in range(4)
    ]
    assert [shard.start for shard in plan.shards['train']] == [0, 2, 5, 7]
    ids = itertools.chain.from_iterable(shard.ids for shard in plan.shards['train'])
    assert list(ids) == [f'train/{i}.mp4' for i in range(10)]
    assert len(plan.shards['val']) == 3  # not more than videos


def test_default_number_of_shards_follows_the_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr('vivit_jax.prepare.plan._SHARD_BYTES', 100)
    (tmp_path / 'frames').mkdir()
    (tmp_path / 'frames' / '1.jpg').write_bytes(bytes(150))
    (tmp_path / 'a.mp4').write_bytes(bytes(140))
    rows = [LabeledVideo(str(tmp_path / 'a.mp4'), 0, start, start + 1) for start in range(5)]
    rows += [LabeledVideo(str(tmp_path / name), 0) for name in ('frames', 'missing.mp4')]
    plan = _plan(tmp_path / 'out', _videos(train=rows))
    assert len(plan.shards['train']) == 3  # of 290 bytes


def test_parts_have_ids_of_their_own(tmp_path):
    rows = [
        LabeledVideo('/d/a.mp4', 0),
        LabeledVideo('/d/a.mp4', 0, 0.0, 1.5),
        LabeledVideo('/d/a.mp4', 0, 1.5),
        LabeledVideo('/d/e/b', 1, None, None, 0, 8),
        LabeledVideo('/d/e/b', 1, None, None, 8),
    ]
    plan = _plan(tmp_path, _videos(train=rows))
    assert plan.shards['train'][0].ids == (
        'a.mp4',
        'a.mp4:0.0-1.5',
        'a.mp4:1.5-',
        'e/b:0+8',
        'e/b:8+',
    )


def test_records_in_other_files_keep_their_names(tmp_path, monkeypatch):
    monkeypatch.setattr('vivit_jax.prepare.plan._SHARD_BYTES', 100)
    file = tmp_path / 'train-00000-of-00001'
    file.write_bytes(bytes(150))
    rows = [LabeledVideo('a.mp4', 0), LabeledVideo(f'{file}, record at byte 90', 1)]
    source = TfRecords(rows, (str(file),), np.zeros((2, 3), np.int64))
    (shards,) = _plan(tmp_path / 'out', Dataset({'train': source}, ('x', 'y'))).shards.values()
    assert [shard.ids for shard in shards] == [
        ('a.mp4',),
        ('train-00000-of-00001, record at byte 90',),
    ]


def test_videos_in_a_folder_given_from_here_have_the_same_ids(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [LabeledVideo('data/a.mp4', 0), LabeledVideo(f'{tmp_path}/data/e/b.mp4', 0)]
    assert _plan(tmp_path, _videos(train=rows)).shards['train'][0].ids == ('a.mp4', 'e/b.mp4')


def test_videos_listed_twice_are_refused(tmp_path):
    rows = [LabeledVideo('/d/a.mp4', 0), LabeledVideo('/d/b.mp4', 0), LabeledVideo('/d/a.mp4', 1)]
    with pytest.raises(UserError, match=r'1 videos of the val split .* twice, such as a\.mp4'):
        _plan(tmp_path, _videos(val=rows))


def test_same_call_gives_the_same_plan_and_leaves_the_settings(tmp_path):
    first = _plan(tmp_path, TEN, num_shards=2)
    settings = first.folder / 'settings.json'
    before = settings.stat().st_mtime_ns
    assert _plan(tmp_path, TEN) == first
    assert settings.stat().st_mtime_ns == before


def test_splits_can_be_added_one_after_the_other(tmp_path):
    assert list(_plan(tmp_path, TEN, split='val').shards) == ['val']
    plan = _plan(tmp_path, TEN, split='train', num_shards=2)
    assert plan.wanted == ('train',)
    assert {split: len(shards) for split, shards in plan.shards.items()} == {'train': 2, 'val': 1}
    assert 'val: shards' in json.loads((plan.folder / 'settings.json').read_text())


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'encoding': Encoding(short_side=32)}, r'short_side was None and is 32\. Use'),
        ({'encoding': Encoding(gop=4, crf=20)}, r'gop was None and is 4; crf was 18 and is 20'),
        ({'num_shards': 3}, r'train: shards was 2 and is 3'),
        ({'label_columns': ('verb',)}, r'classes of label was .* and is None'),
        ({'videos': _videos(train=TEN.splits['train'].videos[:-1])}, r'train: listing was'),
        (
            {
                'videos': _videos(
                    train=[LabeledVideo(row.video_path, 1) for row in TEN.splits['train'].videos]
                )
            },
            r'train: listing was',
        ),
    ],
)
def test_other_settings_are_refused_by_name(tmp_path, change, message):
    train = _videos(train=TEN.splits['train'].videos)
    _plan(tmp_path, train, num_shards=2)
    with pytest.raises(UserError, match=message):
        _plan(tmp_path, **{'videos': train, **change})


def test_folders_of_something_else_are_left_alone(tmp_path):
    (tmp_path / 'mine' / '1.0.0').mkdir(parents=True)
    (tmp_path / 'mine' / '1.0.0' / 'thesis.tex').touch()
    with pytest.raises(UserError, match=r'holds something else'):
        _plan(tmp_path, TEN)


def test_columns_must_not_be_called_like_other_features(tmp_path):
    with pytest.raises(UserError, match=r"\('id',\): records use id and video themselves"):
        _plan(tmp_path, TEN, label_columns=('id',))
