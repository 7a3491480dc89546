import collections
import itertools

import numpy as np
import pytest

from vivit_jax.annotations.dataset import LabeledVideo, count_classes
from vivit_jax.batches.balance import DrawBalanced
from vivit_jax.batches.loader import Workers, train_batches
from vivit_jax.batches.sources import VideoFiles
from vivit_jax.processes import Host
from vivit_jax.video.crops import RandomCrop
from vivit_jax.video.preprocessing import Preprocessing

SIZES = (90, 7, 3)
CROP = RandomCrop(Preprocessing(num_frames=2, frame_stride=1, short_side=20, crop_size=16))


def _videos(labels):
    return [LabeledVideo(f'{i}.mp4', label) for i, label in enumerate(labels)]


def _epoch(videos, balance, seed=0):
    draw, rng = DrawBalanced(videos, balance), np.random.default_rng(seed)
    return [draw.random_map(k, rng) for k in rng.permutation(len(videos))]


def _many(balance):
    """Classes of very different sizes, in any order."""
    labels = np.random.default_rng(0).permutation(np.repeat(range(3), SIZES)).tolist()
    return _videos(labels), [_epoch(_videos(labels), balance, seed) for seed in range(300)]


@pytest.mark.parametrize('balance', [0.0, 0.5, 1.0])
def test_every_epoch_has_the_wanted_number_of_each_class(balance):
    videos, epochs = _many(balance)
    shares = np.float64(SIZES) ** (1 - balance)
    wanted = 100 * shares / shares.sum()
    for epoch in epochs:
        assert len(epoch) == 100
        counts = np.bincount([videos[i].label for i in epoch], minlength=3)
        assert (np.abs(counts - wanted) < 2).all()
    counts = np.bincount([videos[i].label for epoch in epochs for i in epoch])
    np.testing.assert_allclose(counts / 300, wanted, atol=0.1)


def test_videos_of_a_class_are_drawn_equally_often():
    videos, epochs = _many(1.0)
    counts = collections.Counter(itertools.chain(*epochs))
    for label, size in enumerate(SIZES):
        of_class = [counts[i] for i, x in enumerate(videos) if x.label == label]
        expected = 300 * 100 / 3 / size
        assert len(of_class) == size
        np.testing.assert_allclose(of_class, expected, atol=5 * expected**0.5)


def test_balance_0_draws_each_video_once():
    epochs = _many(0.0)[1]
    assert all(sorted(epoch) == list(range(100)) for epoch in epochs)


def test_the_rarest_label_of_a_video_counts_and_none_is_a_class():
    labels = [(0,)] * 12 + [(0, 1)] * 2 + [()] * 4
    epoch = _epoch(_videos(labels), 1.0)
    counts = collections.Counter(labels[i] for i in epoch)
    assert all(abs(counts[label] - 6) < 2 for label in set(labels))


def test_of_several_heads_the_first_counts():
    labels = [{'verb': int(i < 2), 'noun': i % 2} for i in range(20)]
    counts = collections.Counter(labels[i]['verb'] for i in _epoch(_videos(labels), 1.0))
    assert abs(counts[0] - 10) < 2


def test_classes_are_counted():
    of_heads = _videos([{'verb': 0, 'noun': 1}, {'verb': 0, 'noun': 0}])
    counts = count_classes(of_heads, {'verb': ('a', 'b'), 'noun': ('c', 'd')})
    assert {head: x.tolist() for head, x in counts.items()} == {'verb': [2, 0], 'noun': [1, 1]}
    assert count_classes(_videos([(), (0, 2)]), ('a', 'b', 'c')).tolist() == [1, 0, 1]
    assert count_classes(_videos([1, 1]), ('a', 'b')).tolist() == [0, 2]


@pytest.fixture(scope='module')
def source(synthetic_folder):
    """12 videos, two of them of another class than the others."""
    paths = [str(synthetic_folder / f'train/{i:05d}.mp4') for i in range(12)]
    return VideoFiles([LabeledVideo(path, int(i < 2)) for i, path in enumerate(paths)])


def _take(source, count, **options):
    batches = train_batches(source, CROP, **{'batch_size': 4, 'seed': 3, 'balance': 1.0} | options)
    try:
        return list(itertools.islice(batches, count))
    finally:
        batches.close()


def _ids(batches):
    return [batch['video_id'].tolist() for batch in batches]


def test_batches_are_balanced_and_epochs_differ(source):
    batches = _take(source, 6)
    epochs = np.reshape(_ids(batches), (2, 12)).tolist()
    for epoch in epochs:
        assert 5 <= sum(index < 2 for index in epoch) <= 7
    assert epochs[0] != epochs[1] and sorted(epochs[0]) != sorted(epochs[1])


def test_the_stream_is_a_function_of_seed_and_step(source):
    batches = _take(source, 5)
    later = _take(source, 3, start_step=2)
    with_workers = _take(source, 5, workers=Workers(2))
    halves = [_take(source, 5, host=Host(i, 2)) for i in range(2)]
    for a, b in [*zip(batches[2:], later, strict=True), *zip(batches, with_workers, strict=True)]:
        np.testing.assert_array_equal(a['rgb'], b['rgb'])
    for whole, *parts in zip(batches, *halves, strict=True):
        np.testing.assert_array_equal(whole['rgb'], np.concatenate([x['rgb'] for x in parts]))
    assert _ids(_take(source, 5, seed=4)) != _ids(batches)
