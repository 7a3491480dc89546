"""Videos with any number of labels, from a CSV to the row of a batch."""

import collections

import numpy as np
import pytest

from vivit_jax.annotations.annotation import Annotation, AnnotationError, Annotations
from vivit_jax.annotations.check import check_annotations
from vivit_jax.annotations.csv_text import videos_csv
from vivit_jax.annotations.readers.csv_files import read_csv_files
from vivit_jax.annotations.validation_split import draw_validation
from vivit_jax.batches.load_dataset import load_dataset
from vivit_jax.batches.loader import train_batches, view_batches
from vivit_jax.config.schema import default_config
from vivit_jax.errors import UserError
from vivit_jax.prepare.check import check
from vivit_jax.prepare.encode import Encoding
from vivit_jax.prepare.pack import pack
from vivit_jax.prepare.plan import make_plan
from vivit_jax.video.crops import RandomCrop
from vivit_jax.video.preprocessing import Preprocessing

SPEC = Preprocessing(num_frames=2, frame_stride=1, short_side=20, crop_size=16)
LABELS = ['run;jump', '', 'walk; run;', 'jump', 'walk', 'run;run']
ROWS = [[1, 1, 0], [0, 0, 0], [0, 1, 1], [1, 0, 0], [0, 0, 1], [0, 1, 0]]  # jump, run, walk


def _check(folder, labels, separator=';', **options):
    lines = ''.join(f'{i}.mp4,{label}\n' for i, label in enumerate(labels))
    (folder / 'train.csv').write_text(f'video_path,label\n{lines}')
    for i in range(len(labels)):
        (folder / f'{i}.mp4').touch()
    found = read_csv_files(
        {'train': str(folder / 'train.csv')}, '', ('label',), needs_labels=not separator
    )
    return check_annotations(found, label_separator=separator, **options)


@pytest.fixture
def config(synthetic_folder, tmp_path):
    """Of a list of real videos with the labels of this test."""
    lines = [f'{synthetic_folder}/train/{i:05d}.mp4,"{label}"\n' for i, label in enumerate(LABELS)]
    (tmp_path / 'list.csv').write_text('video_path,label\n' + ''.join(lines))
    config = default_config()
    config.data.train_csv = str(tmp_path / 'list.csv')
    config.data.label_separator = ';'
    return config


def test_cells_become_indices_of_sorted_names(tmp_path):
    data = _check(tmp_path, LABELS)
    assert data.label_names == ('jump', 'run', 'walk')
    assert [video.label for video in data.splits['train']] == [
        tuple(np.flatnonzero(row)) for row in ROWS
    ]


def test_numbers_are_indices(tmp_path):
    data = _check(tmp_path, ['0;2', '', '1'])
    assert data.label_names == ('0', '1', '2')
    assert [video.label for video in data.splits['train']] == [(0, 2), (), (1,)]


@pytest.mark.parametrize(
    ('labels', 'options', 'message'),
    [
        (['run;jump', ''], {'separator': ''}, 'train.csv, line 3: no label'),
        (['', ' ; '], {}, "the split train: no video has a label in column 'label'"),
        (['a;b', 'a'], {'label_names': ('a', 'b;c')}, "the class 'b;c' has data.label_separator"),
        (
            ['a;x', 'b;x'],
            {'label_names': ('a', 'b')},
            "label 'x' is none of the 2 classes (2 of 4 labels are unknown)",
        ),
        (['run;Run', 'walk'], {}, "'Run' and 'run' differ in case"),
        (['1;2', '2;3'], {'num_classes': 3}, 'look 1-based'),
    ],
)
def test_mistakes_are_named(tmp_path, labels, options, message):
    with pytest.raises(AnnotationError) as caught:
        _check(tmp_path, labels, **options)
    assert message in str(caught.value)


def test_a_line_for_each_label_is_an_error():
    lines = [
        Annotation(f'list, line {i}', {'video_path': 'a.mp4', 'label': label})
        for i, label in enumerate(('run', 'jump'))
    ]
    with pytest.raises(AnnotationError, match='all labels of a video stand in one cell'):
        check_annotations(Annotations({'train': lines}), label_separator=';', has_files=False)


def test_missing_videos_are_counted_for_each_of_their_classes(tmp_path):
    (tmp_path / '2.mp4').unlink(missing_ok=True)
    lines = Annotations(
        {
            'train': [
                Annotation('x', {'video_path': str(tmp_path / '2.mp4'), 'label': 'run;walk'}),
                Annotation('y', {'video_path': str(tmp_path), 'label': 'run'}),
            ]
        }
    )
    with pytest.raises(AnnotationError, match=r'by class: run 1 of 2, walk 1 of 1'):
        check_annotations(lines, label_separator=';')


def test_drawn_split_has_its_part_of_every_class(tmp_path):
    rng = np.random.default_rng(0)
    names, chances = list('abcdef'), [0.5, 0.3, 0.2, 0.1, 0.1, 0.05]
    cells = [
        ';'.join(x for x, p in zip(names, chances, strict=True) if rng.random() < p)
        for _ in range(400)
    ]
    lines = [
        Annotation(str(i), {'video_path': f'/data/{i}', 'label': cell})
        for i, cell in enumerate(cells)
    ]
    splits = draw_validation(Annotations({'train': lines}), 0.2, 0, ('label',), ';').splits
    assert sorted(splits['train'] + splits['val']) == sorted(lines)
    counts, drawn = (
        collections.Counter(x for line in found for x in line.values['label'].split(';'))
        for found in (lines, splits['val'])
    )
    for name in [*names, '']:
        assert abs(drawn[name] - 0.2 * counts[name]) <= max(2, 0.1 * counts[name]), name


def test_written_lists_are_read_again(tmp_path):
    data = _check(tmp_path, LABELS, separator=';')
    for separator in (';', ',', ' / '):
        text = videos_csv(data.splits['train'], {'label': data.label_names}, separator)
        (tmp_path / 'again.csv').write_text(text)
        found = read_csv_files(
            {'train': str(tmp_path / 'again.csv')}, '', ('label',), needs_labels=False
        )
        assert check_annotations(found, label_separator=separator).splits == data.splits


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'label_columns': ('verb', 'noun')}, 'name one of them'),
        ({'source': 'tfrecords', 'label_map': 'x'}, 'tfrecords have one label'),
    ],
)
def test_what_has_one_label_refuses_a_separator(config, tmp_path, changes, message):
    (tmp_path / 'x').write_text('a\nb\n')
    changes = {k: str(tmp_path / v) if k == 'label_map' else v for k, v in changes.items()}
    config.data.update(changes)
    with pytest.raises(UserError, match=message):
        load_dataset(config.data)


def test_batches_hold_a_row_for_each_video(config):
    source = load_dataset(config.data).splits['train']
    for batches in (
        train_batches(source, RandomCrop(SPEC), batch_size=3, seed=0, repeats=1),
        view_batches(source, SPEC, views=(1, 1), batch_size=4),
    ):
        for _ in range(2):
            batch = next(batches)
            assert batch['label'].dtype == np.float32
            rows = [ROWS[i] if i >= 0 else ROWS[0] for i in batch['video_id']]
            np.testing.assert_array_equal(batch['label'], rows)
        batches.close()


def test_records_keep_all_labels(config, tmp_path):
    import tensorflow_datasets as tfds

    videos = load_dataset(config.data)
    plan = make_plan(
        videos, tmp_path, name='mine', encoding=Encoding(), label_columns=('label',), num_shards=2
    )
    pack(plan, max_bad_fraction=0.0, num_workers=1)
    config.data.update(source='records', root=str(plan.folder), train_csv='')
    records = load_dataset(config.data).splits['train']
    np.testing.assert_array_equal([records.label(i) for i in range(6)], ROWS)
    read = tfds.data_source('mine', split='train', data_dir=str(tmp_path))
    assert [sorted(example['label']) for example in read] == [
        np.flatnonzero(row).tolist() for row in ROWS
    ]
    config.data.label_separator = ''
    with pytest.raises(AnnotationError, match='no label'):
        load_dataset(config.data)


def test_check_counts_a_video_for_each_of_its_classes(config, tmp_path, capsys):
    videos = load_dataset(config.data)
    check(videos, SPEC, tmp_path / 'checked', label_columns=('label',), num_workers=1)
    counts = (tmp_path / 'checked' / 'classes.csv').read_text().splitlines()
    listed = [line.split(',')[2:4] for line in counts[1:]]
    assert listed == [['jump', '2'], ['run', '3'], ['walk', '2']]
    config.data.train_csv = str(tmp_path / 'checked' / 'train_ok.csv')
    again = load_dataset(config.data)
    assert [x.label for x in again.splits['train'].videos] == [
        x.label for x in videos.splits['train'].videos
    ]
    assert '6 listed' in capsys.readouterr().out
