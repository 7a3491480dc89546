import itertools

import numpy as np
import pytest

from vivit_jax.annotations.check import check_annotations
from vivit_jax.annotations.dataset import LabeledVideo
from vivit_jax.annotations.readers.csv_files import read_csv_files
from vivit_jax.batches.loader import Workers, error_text, train_batches, view_batches
from vivit_jax.batches.sources import VideoFiles
from vivit_jax.errors import UserError
from vivit_jax.processes import Host
from vivit_jax.video.crops import RandomCrop, view_crops
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.video.video_reader import VideoReader

SPEC = Preprocessing(num_frames=3, frame_stride=2, short_side=20, crop_size=16)
BROKEN = dict.fromkeys([3, 4], 'no such file') | dict.fromkeys([7, 8], 'not a video file')
CROP = RandomCrop(SPEC, scale_jitter=(0.9, 1.2))


@pytest.fixture(scope='module')
def source(synthetic_folder):
    """24 videos."""
    annotations = check_annotations(
        read_csv_files({'train': str(synthetic_folder / 'train.csv')}, '', ('label',))
    )
    return VideoFiles(annotations.splits['train'])


@pytest.fixture(scope='module')
def two_head_source(source):
    """The same videos, each with two labels that tell it from the others."""
    return VideoFiles(
        [
            LabeledVideo(row.video_path, {'verb': i % 5, 'noun': i // 5})
            for i, row in enumerate(source.videos)
        ]
    )


@pytest.fixture
def damaged_source(source, tmp_path):
    """12 videos, of which four cannot be read."""
    rows = list(source.videos[:12])
    for index, reason in BROKEN.items():
        rows[index] = LabeledVideo(str(tmp_path / f'{index}.mp4'), rows[index].label)
        if 'no such' not in reason:
            (tmp_path / f'{index}.mp4').write_text('hello')
    return VideoFiles(rows)


def _take(batches, count=None):
    try:
        return list(itertools.islice(batches, count))
    finally:
        batches.close()


def _train(source, count, **options):
    return _take(train_batches(source, CROP, **{'batch_size': 4, 'seed': 1, **options}), count)


def _views(source, **options):
    return _take(view_batches(source, SPEC, **options))


def _rows(batches):
    return [
        {key: value[i] for key, value in batch.items()}
        for batch in batches
        for i in range(len(batch['label']))
    ]


def _check_equal(batches, others):
    assert len(batches) == len(others) > 0
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for key in batch:
            np.testing.assert_array_equal(batch[key], other[key], err_msg=key)


def _join_hosts(batches_of_hosts):
    return [
        {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        for parts in zip(*batches_of_hosts, strict=True)
    ]


def test_train_batch_holds_clips_of_its_videos(source):
    for batch in _train(source, 3):
        assert batch['rgb'].shape == (4, 3, 16, 16, 3)
        assert batch['rgb'].dtype == np.uint8
        assert {batch[key].dtype for key in ('label', 'video_id', 'bad_id')} == {np.dtype('int32')}
        assert batch['label'].tolist() == [source.label(i) for i in batch['video_id']]
        assert batch['bad_id'].tolist() == [-1] * 4
        assert [error_text(error) for error in batch['error']] == [''] * 4


@pytest.mark.parametrize('workers', [Workers(), Workers(1)], ids=['threads', 'process'])
def test_labels_of_several_heads_stay_with_their_videos(source, two_head_source, workers):
    views = {'views': (1, 1), 'batch_size': 5}
    for batches, plain in (
        (_train(two_head_source, 2, workers=workers), _train(source, 2)),
        (_views(two_head_source, workers=workers, **views), _views(source, **views)),
    ):
        for batch, expected in zip(batches, plain, strict=True):
            labels, video_id = batch['label'], batch['video_id'].clip(0)  # -1 is padding
            assert {x.dtype for x in labels.values()} == {np.dtype('int32')}
            np.testing.assert_array_equal(labels['verb'], video_id % 5)
            np.testing.assert_array_equal(labels['noun'], video_id // 5)
            assert all(type(x) is np.ndarray for x in labels.values())
            # Nothing else depends on the labels.
            others = [{k: v for k, v in b.items() if k != 'label'} for b in (batch, expected)]
            _check_equal([others[0]], [others[1]])


def test_train_clip_is_part_of_its_video(source):
    # Without jitter and with the whole short side, a clip is one of few pieces of its video.
    spec = Preprocessing(num_frames=3, frame_stride=2, short_side=32, crop_size=32)
    (batch,) = _take(train_batches(source, RandomCrop(spec), batch_size=4, seed=1), 1)
    for clip, index in zip(batch['rgb'], batch['video_id'], strict=True):
        with VideoReader(source.videos[index].video_path) as video:
            frames = video.read(range(10))
        pieces = [
            frames[start : start + 5 : 2, :, left : left + 32]
            for start in range(6)
            for left in range(9)
        ]
        assert sum(np.array_equal(clip, piece) for piece in pieces) == 1


def test_each_epoch_is_another_permutation(source):
    batches = _train(source, 18)
    epochs = np.concatenate([batch['video_id'] for batch in batches]).reshape(3, 24)
    for epoch in epochs:
        assert sorted(epoch) == list(range(24))
    assert len({tuple(epoch) for epoch in [*epochs, range(24)]}) == 4
    # Nor does a video come with the same clip again.
    clips = np.concatenate([batch['rgb'] for batch in batches])
    assert len({clip.tobytes() for clip in clips}) == 72


def test_order_and_clips_follow_seed(source):
    first = _train(source, 2)
    _check_equal(first, _train(source, 2))
    other = _train(source, 2, seed=2)
    assert [b['video_id'].tolist() for b in first] != [b['video_id'].tolist() for b in other]


@pytest.mark.parametrize('start', [1, 5, 6, 13])  # an epoch has six batches
def test_resumed_stream_equals_uninterrupted(source, start):
    whole = _train(source, 15)
    _check_equal(_train(source, 15 - start, start_step=start), whole[start:])


def test_skipped_batches_are_not_decoded(damaged_source):
    class Counting(VideoFiles):
        def open(self, index):
            opened.append(index)
            return super().open(index)

    opened = []
    _train(Counting(damaged_source.videos[:3]), 1, batch_size=1, start_step=1000)
    assert len(opened) < 10


@pytest.mark.parametrize('num_hosts', [2, 4])
def test_hosts_together_load_global_batch(source, num_hosts):
    hosts = [
        _train(source, 8, start_step=2, host=Host(index, num_hosts)) for index in range(num_hosts)
    ]
    assert len(hosts[0][0]['label']) == 4 // num_hosts
    _check_equal(_join_hosts(hosts), _train(source, 8, start_step=2))


def test_batch_size_must_divide_among_hosts(source):
    with pytest.raises(ValueError, match=r'batch size 4 does not divide among 3 hosts'):
        train_batches(source, CROP, batch_size=4, seed=0, host=Host(0, 3))
    with pytest.raises(ValueError, match=r'batch size 8 does not divide among 3 hosts'):
        view_batches(source, SPEC, views=(1, 1), batch_size=8, host=Host(0, 3))


@pytest.mark.slow
@pytest.mark.parametrize('workers', [Workers(1, threads=2), Workers(2, buffer=1)])
def test_worker_processes_change_nothing(damaged_source, workers):
    _check_equal(_train(damaged_source, 7, workers=workers), _train(damaged_source, 7))
    options = {'views': (2, 3), 'batch_size': 5}
    views = _views(damaged_source, workers=workers, **options)
    _check_equal(views, _views(damaged_source, **options))


def test_threads_change_nothing(damaged_source):
    threads = Workers(threads=4, buffer=8)
    _check_equal(_train(damaged_source, 7, workers=threads), _train(damaged_source, 7))


def test_batches_stay_valid(source):
    batches = train_batches(source, CROP, batch_size=4, seed=1)
    kept = [next(batches) for _ in range(6)]
    copies = [{key: value.copy() for key, value in batch.items()} for batch in kept]
    _take(batches, 4)
    _check_equal(kept, copies)


def test_broken_video_is_substituted_and_reported(damaged_source):
    batches = _train(damaged_source, 6)  # two epochs
    _check_equal(batches, _train(damaged_source, 6))
    rows = _rows(batches)
    bad = [row for row in rows if row['bad_id'] >= 0]
    # Where a substitute is broken too, it is the first that is reported.
    assert sorted(row['bad_id'] for row in bad) == sorted(2 * list(BROKEN))
    assert len({int(row['video_id']) for row in bad}) > 3  # not always the neighbour
    for row in rows:
        assert row['video_id'] not in BROKEN
        assert row['label'] == damaged_source.label(row['video_id'])
        assert row['rgb'].any()
        text = error_text(row['error'])
        assert bool(text) == (row['bad_id'] >= 0)
        if text:
            index = int(row['bad_id'])
            assert text.startswith(f'{damaged_source.videos[index].video_path}: {BROKEN[index]}')


def test_repeats_are_different_clips_of_one_video(source):
    batches = _train(source, 12, batch_size=4, repeats=2)
    pairs = np.concatenate([batch['video_id'] for batch in batches]).reshape(-1, 2)
    assert np.all(pairs[:, 0] == pairs[:, 1])
    assert sorted(pairs[:, 0]) == list(range(24))  # 24 videos in 12 batches
    clips = np.concatenate([batch['rgb'] for batch in batches]).reshape(-1, 2, 3, 16, 16, 3)
    assert np.mean([np.array_equal(a, b) for a, b in clips]) < 0.2
    labels = [source.label(i) for i in pairs[:, 0]]
    assert (
        np.concatenate([batch['label'] for batch in batches]).tolist()
        == np.repeat(labels, 2).tolist()
    )
    assert batches[0]['error'].shape == (4, 512)


@pytest.mark.parametrize('num_hosts', [1, 2])
def test_repeats_resume_and_divide_among_hosts(damaged_source, num_hosts):
    whole = _train(damaged_source, 8, repeats=2)
    parts = [
        _train(damaged_source, 5, repeats=2, start_step=3, host=Host(i, num_hosts))
        for i in range(num_hosts)
    ]
    _check_equal(_join_hosts(parts), whole[3:])


def test_batch_must_divide_into_repeats(source):
    with pytest.raises(UserError, match=r'batch_size=4 must divide by augment\.repeats=3'):
        _train(source, 1, repeats=3)


def test_all_videos_broken_raises_first_reason(tmp_path):
    source = VideoFiles([LabeledVideo(str(tmp_path / f'{i}.mp4'), 0) for i in range(6)])
    with pytest.raises(UserError, match=r'8 unusable videos in a row; .*\.mp4: no such file'):
        _train(source, 1)


@pytest.mark.parametrize('num_hosts', [1, 3])
@pytest.mark.parametrize(('views', 'batch_size'), [((4, 3), 9), ((1, 1), 12), ((2, 1), 6)])
def test_views_cover_every_video_once(source, views, batch_size, num_hosts):
    source = VideoFiles(source.videos[:5])
    options = {'views': views, 'batch_size': batch_size}
    hosts = [_views(source, host=Host(i, num_hosts), **options) for i in range(num_hosts)]
    assert len({len(batches) for batches in hosts}) == 1  # else some host would wait for ever
    rows = [batch for batches in hosts for batch in batches]
    assert {len(batch['mask']) for batch in rows} == {batch_size // num_hosts}
    mask, video_id, view, label = (
        np.concatenate([batch[key] for batch in rows])
        for key in ('mask', 'video_id', 'view', 'label')
    )
    assert mask.dtype == bool
    seen = list(zip(video_id[mask].tolist(), view[mask].tolist(), strict=True))
    assert sorted(seen) == list(itertools.product(range(5), range(views[0])))
    assert label[mask].tolist() == [source.label(i) for i in video_id[mask]]
    assert (~mask).sum() == -5 * views[0] % batch_size
    assert set(video_id[~mask].tolist()) <= {-1}
    _check_equal(_join_hosts(hosts), _views(source, **options))


def test_views_hold_their_clips(source):
    # Clips of three frames at stride 2 start at 0, 2.5 (rounded to even) and 5.
    batch, *_ = _views(VideoFiles(source.videos[:2]), views=(3, 3), batch_size=6)
    assert batch['rgb'].shape == (6, 3, 3, 16, 16, 3)
    for i, start in enumerate([0, 2, 5, 0, 2, 5]):
        with VideoReader(source.videos[i // 3].video_path) as video:
            expected = video.read(
                range(start, start + 5, 2), lambda h, w: view_crops(h, w, SPEC, 3)
            )
        np.testing.assert_array_equal(batch['rgb'][i], expected)


def test_views_of_broken_video_are_zero_and_reported(damaged_source):
    batches = _views(damaged_source, views=(2, 2), batch_size=6)
    rows = _rows(batches)
    assert len(rows) == 24
    for row in rows:
        is_bad = row['video_id'] in BROKEN
        assert row['mask']
        assert row['label'] == damaged_source.label(row['video_id'])
        assert row['rgb'].any() != is_bad
        path = damaged_source.videos[row['video_id']].video_path
        assert error_text(row['error']).startswith(f'{path}: ' if is_bad else '')
        assert bool(error_text(row['error'])) == is_bad


@pytest.mark.parametrize('prefix', ['', 'a'])  # of two bytes, one is cut off with one of them
def test_long_error_is_cut(tmp_path, prefix):
    name = 'ä' * 120  # two bytes each
    source = VideoFiles([LabeledVideo(f'{tmp_path}/{prefix}{name}/{name}/{name}.mp4', 0)])
    (batch,) = _views(source, views=(1, 1), batch_size=1)
    assert batch['error'].shape == (1, 512)
    text = error_text(batch['error'][0])
    assert text.endswith('.mp4: no such file')  # the reason is what must be left
    assert f'{source.videos[0].video_path}: no such file'.endswith(text)
    assert 511 <= len(text.encode()) <= 512
