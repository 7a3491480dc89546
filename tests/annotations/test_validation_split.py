import collections
import dataclasses
import random

import pytest

from vivit_jax.annotations.annotation import Annotation, AnnotationError, Annotations
from vivit_jax.annotations.dataset import Dataset, LabeledVideo
from vivit_jax.annotations.validation_split import (
    check_drawn_lists,
    draw_validation,
    drawn_lists,
)
from vivit_jax.batches.sources import VideoFiles
from vivit_jax.errors import UserError


def _line(path, label, **columns):
    values = {'video_path': path, 'label': label, **columns}
    return Annotation(f'list, {path}', values)


def _videos(sizes, folder='/data'):
    return [
        _line(f'{folder}/{label}/{number:04d}.mp4', label)
        for label, size in sizes.items()
        for number in range(size)
    ]


def _draw(lines, fraction=0.2, seed=0, columns=('label',), **splits):
    annotations = Annotations({'train': lines, **splits})
    return draw_validation(annotations, fraction, seed, columns).splits


def _count(lines, column='label'):
    return collections.Counter(line.values[column] for line in lines)


def _paths(lines):
    return {line.values['video_path'] for line in lines}


@pytest.mark.parametrize('fraction', [0.01, 0.1, 0.2, 0.5, 0.9, 0.99])
def test_split_is_disjoint_complete_and_stratified(fraction):
    sizes = {'one': 1, 'two': 2, 'three': 3, 'ten': 10, 'many': 97}
    lines = _videos(sizes)
    splits = _draw(lines, fraction, seed=3)
    assert not _paths(splits['train']) & _paths(splits['val'])
    assert _paths(splits['train']) | _paths(splits['val']) == _paths(lines)
    assert splits['train'] == [line for line in lines if line in splits['train']]  # their order
    found = _count(splits['val'])
    assert found['one'] == 0
    for label, size in sizes.items():
        assert found[label] < size
        if size > 1:
            nearest = min(range(1, size), key=lambda n: abs(n - fraction * size))
            assert abs(found[label] - fraction * size) <= abs(nearest - fraction * size) + 1e-9


def test_split_follows_the_seed_and_neither_order_nor_folder():
    sizes = {'run': 40, 'sit': 30}
    lines = _videos(sizes)
    wanted = _paths(_draw(lines)['val'])
    shuffled = random.Random(1).sample(lines, len(lines))
    assert _paths(_draw(shuffled)['val']) == wanted
    moved = _paths(_draw(_videos(sizes, folder='/other/place'))['val'])
    assert {path.replace('/other/place', '/data') for path in moved} == wanted
    assert _paths(_draw(lines, seed=1)['val']) != wanted


def test_every_video_is_drawn_for_some_seed():
    lines = _videos({'run': 10})
    drawn = collections.Counter()
    for seed in range(300):
        drawn.update(_paths(_draw(lines, seed=seed)['val']))
    assert set(drawn) == _paths(lines)
    assert all(30 < count < 90 for count in drawn.values())  # 60 on average


@pytest.mark.parametrize('column', ['group', 'subject'])
@pytest.mark.parametrize('seed', range(5))
def test_groups_stay_whole_and_classes_come_near(column, seed):
    rng = random.Random(seed)
    lines = [
        _line(f'{person}/{label}{take}.mp4', label, **{column: person})
        for person in map(str, range(20))
        for label in 'abcde'
        for take in range(rng.randint(1, 3))
    ]
    splits = _draw(lines, 0.2, seed)
    groups = {split: set(_count(found, column)) for split, found in splits.items()}
    assert not groups['train'] & groups['val']
    assert len(splits['train']) + len(splits['val']) == len(lines)
    listed, drawn = _count(lines), _count(splits['val'])
    for label in 'abcde':
        assert abs(drawn[label] / listed[label] - 0.2) < 0.08
    shuffled = rng.sample(lines, len(lines))
    assert _paths(_draw(shuffled, 0.2, seed)['val']) == _paths(splits['val'])


@pytest.mark.parametrize('seed', range(5))
def test_the_groups_that_fit_best_are_drawn(seed):
    sizes = {'a': 30, 'b': 50, 'c': 20}  # only c is a fifth
    lines = [
        _line(f'{group}{i}.mp4', 'run', group=group) for group in sizes for i in range(sizes[group])
    ]
    assert set(_count(_draw(lines, 0.2, seed)['val'], 'group')) == {'c'}


def test_no_class_is_lost_to_validation():
    lines = [_line(f'{i}.mp4', 'run', group=str(i // 4)) for i in range(20)]
    lines += [_line(f'rare{i}.mp4', 'rare', group='0') for i in range(2)]
    for seed in range(10):
        assert set(_count(_draw(lines, 0.4, seed)['val'], 'group')) <= {'1', '2', '3', '4'}


def test_a_column_of_labels_is_no_group():
    lines = [_line(f'{i}.mp4', 'x', subject=f'person {i % 2}') for i in range(20)]
    splits = _draw(lines, columns=('subject',))
    assert _count(splits['val'], 'subject') == {'person 0': 2, 'person 1': 2}


def test_the_first_of_several_heads_is_stratified():
    lines = [_line(f'{i}.mp4', f'{i % 2}', noun=f'{i % 3}') for i in range(60)]
    assert _count(_draw(lines, columns=('label', 'noun'))['val']) == {'0': 6, '1': 6}
    assert _count(_draw(lines, columns=('noun', 'label'))['val'], 'noun') == dict.fromkeys('012', 4)


def test_parts_of_a_video_stay_together(tmp_path):
    (tmp_path / 'link').symlink_to(tmp_path)
    lines = [
        _line(str(tmp_path / folder / f'{video}.mp4'), 'run', start_sec=str(start))
        for video in range(10)
        for start, folder in enumerate(('', 'link', ''))
    ]
    splits = _draw(lines)
    names = {split: {path.split('/')[-1] for path in _paths(splits[split])} for split in splits}
    assert len(names['val']) == 2
    assert not names['train'] & names['val']


def test_log_says_what_was_drawn(caplog):
    lines = [_line(f'{i}.mp4', f'c{i % 3}', group=f'{i // 6}') for i in range(60)]
    with caplog.at_level('INFO'):
        _draw(lines, 0.2, seed=7)
    assert caplog.messages == [
        'val: 12 of 60 training videos, drawn by data.val_fraction=0.2 and seed=7, 2 of 10 groups '
        "by the column 'group'; c0 4 of 20, c1 4 of 20, c2 4 of 20"
    ]


def test_log_of_many_classes_names_those_without(caplog):
    with caplog.at_level('INFO'):
        _draw(_videos({f'{i:02d}': 1 + bool(i) for i in range(20)}))
    assert caplog.messages[0].endswith('; of 19 of 20 classes, not of 00')


@pytest.mark.parametrize(
    ('lines', 'message'),
    [
        ([_line(f'{i}.mp4', 'run', group='') for i in range(9)], r'list, 0\.mp4: no group: '),
        (
            [_line('a.mp4', 'run', group='1'), _line('a.mp4', 'run', group='2')],
            "has the group '2' here and '1' elsewhere",
        ),
        (
            [_line(f'{i}.mp4', 'run', group='1') for i in range(9)],
            "the 9 training videos, in 1 groups by the column 'group'",
        ),
        (
            [_line(f'{i}.mp4', 'run', group=f'{i % 2}') for i in range(10)],
            'in 2 groups by the column .*, the smallest of 5 videos, give no validation split',
        ),
        # Each group is all there is of a class.
        (
            [_line(f'{i}.mp4', f'{i % 5}', group=f'{i % 5}') for i in range(50)],
            'leaves every class a training',
        ),
        ([_line('a.mp4', 'run'), _line('b.mp4', 'sit')], 'the 2 training videos give no'),
    ],
)
def test_impossible_split_is_an_error(lines, message):
    with pytest.raises(AnnotationError, match=message):
        _draw(lines)


def test_a_validation_split_that_exists_is_not_drawn_anew():
    lines = _videos({'run': 5})
    with pytest.raises(UserError, match=r'draws a validation split, but the dataset has one, or'):
        _draw(lines, val=lines)
    with pytest.raises(UserError, match=r'set data\.train_csv'):
        draw_validation(Annotations({'test': lines}), 0.2, 0, ('label',))


def _dataset(folder='/data', **splits):
    videos = {
        split: VideoFiles([LabeledVideo(f'{folder}/{name}', 0) for name in names])
        for split, names in splits.items()
    }
    return Dataset(videos, ('run',), val_is_drawn=True)


@pytest.fixture
def run_folder(tmp_path):
    """A folder with the lists of a drawn split."""
    dataset = _dataset(train=['a/1.mp4', 'b/2.mp4'], val=['a/3.mp4', 'b/4.mp4'])
    for name, text in drawn_lists(dataset, ('label',)).items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    'dataset',
    [
        _dataset(train=['a/1.mp4', 'b/2.mp4'], val=['b/4.mp4', 'a/3.mp4']),
        _dataset(val=['a/3.mp4', 'b/4.mp4']),
        _dataset('/moved/here', train=['a/1.mp4', 'b/2.mp4'], val=['a/3.mp4', 'b/4.mp4']),
        dataclasses.replace(_dataset(val=['other.mp4']), val_is_drawn=False),
    ],
)
def test_the_same_split_is_accepted_wherever_it_lies(run_folder, dataset):
    check_drawn_lists(run_folder, dataset, ('label',))


@pytest.mark.parametrize(
    ('splits', 'message'),
    [
        (
            {'val': ['a/3.mp4', 'b/2.mp4']},
            r'the 2 videos of .*/val_videos\.csv no longer come out: 1 of them',
        ),
        (
            {'train': ['a/1.mp4', 'b/2.mp4', 'b/5.mp4'], 'val': ['a/3.mp4', 'b/4.mp4']},
            'and 1 are new',
        ),
    ],
)
def test_another_split_than_that_of_the_run_is_an_error(run_folder, splits, message):
    with pytest.raises(UserError, match=message) as caught:
        check_drawn_lists(run_folder, _dataset(**splits), ('label',))
    assert f'--config.data.val_csv={run_folder}/val_videos.csv' in str(caught.value)


def test_a_run_without_validation_split_has_none_to_draw(tmp_path):
    dataset = _dataset(val=['a/3.mp4'])
    check_drawn_lists(tmp_path, dataset, ('label',))  # of no run
    (tmp_path / 'checkpoints').mkdir()
    check_drawn_lists(tmp_path, dataset, ('label',))
    (tmp_path / 'config.json').touch()
    with pytest.raises(UserError, match='no split was drawn when the run'):
        check_drawn_lists(tmp_path, dataset, ('label',))
