import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vivit_jax.annotations.annotation import Annotation, AnnotationError, Annotations
from vivit_jax.annotations.check import check_annotations, most_bad
from vivit_jax.annotations.dataset import LabeledVideo
from vivit_jax.annotations.label_map import read_label_map
from vivit_jax.annotations.readers.csv_files import read_csv_files

TRAIN = 'a.mp4,walk\nb.mp4,jump\nc.mp4,run\n'
VAL = 'd.mp4,run\ne.mp4,walk\n'


def _write(folder, header='video_path,label', videos='abcdefghij', **tables):
    """Writes <split>.csv of each split, and the videos as empty files."""
    for name in videos:
        (folder / f'{name}.mp4').touch()
    files = {}
    for split, lines in tables.items():
        files[split] = str(folder / f'{split}.csv')
        Path(files[split]).write_text(f'{header}\n{lines}', encoding='utf-8')
    return files


def _load(files, *, root='', label_columns=None, **options):
    columns = label_columns or {'label': 'label'}
    found = read_csv_files(files, root, tuple(columns.values()))
    return check_annotations(found, label_columns=columns, **options)


def _error(files, **options):
    with pytest.raises(AnnotationError) as caught:
        _load(files, **options)
    return str(caught.value)


def test_names_become_sorted_indices(tmp_path):
    data = _load(_write(tmp_path, train=TRAIN, val=VAL))
    assert data.label_names == ('jump', 'run', 'walk')
    assert [row.label for row in data.splits['train']] == [2, 0, 1]
    assert [row.label for row in data.splits['val']] == [1, 2]
    assert data.splits['train'][0] == LabeledVideo(os.path.join(tmp_path, 'a.mp4'), 2)


def test_label_order_does_not_depend_on_process(tmp_path):
    names = [f'class {i * 37 % 101}' for i in range(101)]
    files = _write(tmp_path, train=''.join(f'a.mp4,{name}\n' for name in names))
    code = (
        'import sys; from vivit_jax.annotations.check import check_annotations; '
        'from vivit_jax.annotations.readers.csv_files import read_csv_files; '
        'found = read_csv_files({"train": sys.argv[1]}, "", ("label",)); '
        'print(*check_annotations(found).label_names, sep="\\n")'
    )
    orders = [
        subprocess.run(
            [sys.executable, '-c', code, files['train']],
            env={**os.environ, 'PYTHONHASHSEED': seed, 'PYTHONPATH': os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
        for seed in ('1', '2')
    ]
    assert orders[0] == orders[1] == sorted(names)


def test_label_map_gives_order(tmp_path):
    files = _write(tmp_path, train=TRAIN, val=VAL)
    data = _load(files, label_names=['walk', 'run', 'jump'])
    assert [row.label for row in data.splits['train']] == [0, 2, 1]
    assert data.label_names == ('walk', 'run', 'jump')


def test_integer_labels_are_indices(tmp_path):
    files = _write(tmp_path, train='a.mp4,0\nb.mp4,10\nc.mp4,2\n', val='d.mp4,7\n')
    data = _load(files)
    assert [row.label for row in data.splits['train']] == [0, 10, 2]  # and '10' not before '2'
    assert data.splits['val'][0].label == 7
    assert data.label_names == tuple(str(i) for i in range(11))
    assert len(_load(files, num_classes=20).label_names) == 20
    named = _load(files, label_names=[f'class {i}' for i in range(11)])
    assert [row.label for row in named.splits['train']] == [0, 10, 2]


def test_integers_of_label_map_are_names(tmp_path):
    files = _write(tmp_path, train='a.mp4,7\nb.mp4,3\n')
    data = _load(files, label_names=['7', '3'])
    assert [row.label for row in data.splits['train']] == [0, 1]


def test_byte_order_mark_and_spaces_are_ignored(tmp_path):
    lines = ' a.mp4 , long jump\n\nb.mp4,run ,\n'
    files = _write(tmp_path, header='\ufeffvideo_path,label', train=lines)
    data = _load(files)
    assert data.label_names == ('long jump', 'run')
    assert [Path(row.video_path).name for row in data.splits['train']] == ['a.mp4', 'b.mp4']


def test_spaces_of_header_are_ignored(tmp_path):
    files = _write(tmp_path, header='video_path, label', train='a.mp4, run\n')
    assert _load(files).label_names == ('run',)


def test_other_encoding_raises_the_file(tmp_path):
    files = _write(tmp_path, train=TRAIN)
    Path(files['train']).write_bytes('video_path,label\na.mp4,säge\n'.encode('latin-1'))
    assert 'train.csv' in _error(files)


def test_seconds_are_read(tmp_path):
    header = 'label,end_sec,video_path,start_sec,subject'
    files = _write(tmp_path, header=header, train='run,2.5,a.mp4,.5,7\nrun,,b.mp4,,\nrun,3,c.mp4\n')
    rows = _load(files).splits['train']
    assert [(row.start_sec, row.end_sec) for row in rows] == [(0.5, 2.5), (None, None), (None, 3)]


def test_paths_are_relative_to_csv_or_root(tmp_path):
    (tmp_path / 'lists').mkdir()
    (tmp_path / 'root' / 'sub').mkdir(parents=True)
    (tmp_path / 'root' / 'sub' / 'a.mp4').touch()
    for videos, root in ((tmp_path / 'lists', ''), (tmp_path / 'root', str(tmp_path / 'root'))):
        (videos / 'sub').mkdir(exist_ok=True)
        (videos / 'sub' / 'a.mp4').touch()
        files = _write(tmp_path / 'lists', videos='', train='sub/a.mp4,run\n')
        (row,) = _load(files, root=root).splits['train']
        assert row.video_path == str(videos / 'sub' / 'a.mp4')
    absolute = _write(tmp_path, train=f'{tmp_path / "b.mp4"},run\n')
    (row,) = _load(absolute, root='elsewhere').splits['train']
    assert row.video_path == str(tmp_path / 'b.mp4')


@pytest.mark.parametrize(
    ('header', 'lines', 'parts'),
    [
        ('path,label', 'a.mp4,run\n', ["no column ['video_path']", "['path', 'label']"]),
        ('video_path,verb', 'a.mp4,run\n', ["no column ['label']", 'data.label_columns']),
        ('a,b', 'a.mp4,run\n', ["no column ['video_path', 'label']"]),
        ('video_path,label', '', ['the split is empty']),
        ('video_path,label', 'a.mp4,run\n,run\n', ['line 3: no video_path']),
        ('video_path,label', 'a.mp4,run\n\nb.mp4\n', ['line 4: no label']),
        ('video_path,label', 'a.mp4, \n', ['line 2: no label']),
        ('video_path,label,start_sec', 'a.mp4,run,1:30\n', ['line 2', "start_sec='1:30' is not"]),
        ('video_path,label,end_sec', 'a.mp4,run,2s\n', ['line 2', "end_sec='2s' is not"]),
        ('video_path,label,num_frames', 'a.mp4,run,2.5\n', ["num_frames='2.5' is not a number of"]),
        ('video_path,label,num_frames', 'a.mp4,run,0\n', ['line 2', 'num_frames=0 is no part']),
    ],
)
def test_malformed_csv_raises_file_and_place(tmp_path, header, lines, parts):
    message = _error(_write(tmp_path, header=header, train=lines))
    assert message.startswith(str(tmp_path / 'train.csv'))
    for part in parts:
        assert part in message


def test_missing_csv_raises_its_path_and_format(tmp_path):
    message = _error({'train': str(tmp_path / 'nowhere.csv')})
    assert str(tmp_path / 'nowhere.csv') in message
    assert 'video_path,label' in message


def test_no_source_of_class_names_raises(tmp_path):
    assert 'set data.train_csv or data.label_map' in _error(_write(tmp_path, val=VAL))


def test_unknown_label_raises_near_name(tmp_path):
    message = _error(_write(tmp_path, train=TRAIN, val='d.mp4,run\ne.mp4,jmp\nf.mp4,jmp\n'))
    assert 'val.csv, line 3' in message
    assert "label 'jmp' is none of the 3 classes; did you mean 'jump'?" in message
    assert '2 of 3 labels' in message


@pytest.mark.parametrize(
    ('train', 'val', 'options', 'part'),
    [
        ('a.mp4,0\nb.mp4,5\n', '', {'num_classes': 5}, 'label 5 is out of range'),
        ('a.mp4,0\n', 'd.mp4,3\n', {'num_classes': 3}, 'label 3 is out of range'),
        ('a.mp4,0\nb.mp4,3\n', '', {'label_names': ['x', 'y', 'z']}, 'label 3 is out of range'),
        ('a.mp4,0\nb.mp4,99999999999\n', '', {}, 'label 99999999999 is out of range'),
        ('a.mp4,1\nb.mp4,2\n', '', {}, 'labels run from 1 to 2 and look 1-based'),
        ('a.mp4,1\nb.mp4,3\n', 'd.mp4,2\n', {'num_classes': 3}, 'from 1 to 3 and look 1-based'),
        ('a.mp4,1\nb.mp4,3\n', '', {'label_names': ['x', 'y', 'z']}, 'look 1-based'),
    ],
)
def test_integer_label_out_of_range_raises(tmp_path, train, val, options, part):
    tables = {'train': train, 'val': val} if val else {'train': train}
    assert part in _error(_write(tmp_path, **tables), **options)


def test_other_number_of_classes_raises(tmp_path):
    message = _error(_write(tmp_path, train=TRAIN), num_classes=400)
    assert 'model.num_classes=400, but there are 3 classes (jump, run, walk' in message


def test_several_labels_of_a_video_are_told(tmp_path, caplog):
    _load(_write(tmp_path, train=TRAIN + 'a.mp4,run\na.mp4,walk\nb.mp4,jump\n'))
    assert 'train: 1 videos are listed with several labels, such as' in caplog.text
    assert 'a.mp4' in caplog.text


@pytest.mark.parametrize('split', ['val', 'test'])
def test_overlap_with_train_raises(tmp_path, split):
    # The same file by another path.
    message = _error(_write(tmp_path, train=TRAIN, **{split: 'd.mp4,run\n./b.mp4,run\n'}))
    assert message.startswith(f'1 videos are in both train and {split}')
    assert 'b.mp4' in message


@pytest.mark.parametrize(
    ('columns', 'train', 'other', 'same'),
    [
        ('start_sec,end_sec', '0,2', '2,4', '0.0,2.0'),
        ('start_frame,num_frames', '0,8', '8,8', '00,08'),
    ],
)
def test_other_part_of_video_is_no_overlap(tmp_path, columns, train, other, same):
    def files(part):
        header = f'video_path,label,{columns}'
        lines = {'train': f'a.mp4,run,{train}\n', 'val': f'a.mp4,run,{part}\n'}
        return _write(tmp_path, header=header, **lines)

    assert len(_load(files(other)).splits['val']) == 1
    assert '1 videos are in both' in _error(files(same))


@pytest.mark.parametrize(
    ('num_found', 'fraction', 'is_error'),
    [
        (9, 0, True),
        (6, 0.01, False),
        (5, 0.01, True),
        (5, 0.49, True),
        (5, 0.5, False),
        (0, 1, False),
    ],
)
def test_missing_videos_raise_above_fraction(tmp_path, caplog, num_found, fraction, is_error):
    names = 'abcdefghij'
    lines = ''.join(f'{name}.mp4,{"run" if name in "adg" else "jump"}\n' for name in names)
    files = _write(tmp_path, videos=names[:num_found], train=lines)
    says = f'{10 - num_found} of 10 videos of the train split do not exist'
    with caplog.at_level(logging.WARNING):
        if is_error:
            message = _error(files, max_bad_fraction=fraction)
            assert f'raise data.max_bad_fraction={fraction}' in message
        else:
            data = _load(files, max_bad_fraction=fraction)
            assert len(data.splits['train']) == 10
            message = caplog.text
    assert says in message
    assert str(tmp_path / 'j.mp4') in message or is_error
    assert f'jump {len(set(names[num_found:]) - set("adg"))} of 7' in message
    assert (says in caplog.text) != is_error


def test_a_class_without_any_video_is_no_matter_of_a_few(tmp_path):
    lines = ''.join(f'{name}.mp4,{"run" if name < "i" else "jump"}\n' for name in 'abcdefghij')
    files = _write(tmp_path, videos='abcdefgh', train=lines)
    assert '(by class: jump 2 of 2), such as ' in _error(files, max_bad_fraction=0.19)
    _load(files, max_bad_fraction=0.2)
    val = 'k.mp4,run\nl.mp4,jump\nm.mp4,jump\n'
    files = _write(tmp_path, videos='ijlm', train=lines, val=val)
    assert len(_load(files, max_bad_fraction=0.01).splits['val']) == 3


def test_every_missing_video_is_named_up_to_twenty(tmp_path, caplog):
    names = [f'{number:03d}' for number in range(100)]
    files = _write(tmp_path, videos=names[25:], train=''.join(f'{x}.mp4,run\n' for x in names))
    _load(files, max_bad_fraction=0.25)
    named = [line.strip() for line in caplog.text.splitlines() if line.startswith('  ')]
    assert named == [str(tmp_path / f'{name}.mp4') for name in names[:20]] + ['…']


@pytest.mark.parametrize(
    ('num_videos', 'fraction', 'most'),
    [
        *((60, 0.01, 5), (600, 0.01, 6), (11, 0.01, 5), (10, 0.01, 4), (3, 0.01, 1)),
        *((2, 0.01, 0), (1, 0.5, 0), (60, 0, 0), (60, 0.5, 30), (60, 1, 60)),
    ],
)
def test_a_few_videos_may_be_bad_but_never_half_of_them(num_videos, fraction, most):
    assert most_bad(num_videos, fraction) == most


def test_class_without_training_video_warns(tmp_path, caplog):
    _load(_write(tmp_path, train=TRAIN), label_names=['jump', 'run', 'sit', 'walk'])
    assert "column 'label': 1 classes have no training video: sit" in caplog.text


def test_label_map_is_one_name_per_line(tmp_path):
    (tmp_path / 'map.txt').write_text('walk \n\nlong jump\nrun', encoding='utf-8')
    assert read_label_map(tmp_path / 'map.txt') == ('walk', 'long jump', 'run')


@pytest.mark.parametrize(
    ('text', 'reason'), [('a\nb\na\n', r"\['a'\] twice"), ('\n \n', 'is empty'), (None, 'No such')]
)
def test_unusable_label_map_raises_path_and_reason(tmp_path, text, reason):
    if text is not None:
        (tmp_path / 'map.txt').write_text(text)
    with pytest.raises(AnnotationError, match=rf'map\.txt: {reason}'):
        read_label_map(tmp_path / 'map.txt')


def test_byte_order_mark_of_label_map_is_ignored(tmp_path):
    (tmp_path / 'map.txt').write_text('walk\nrun\n', encoding='utf-8-sig')
    assert read_label_map(tmp_path / 'map.txt') == ('walk', 'run')


HEADS = {'verb': 'verb', 'noun': 'noun'}
TWO = 'video_path,noun,verb'  # the heads have another order than the columns of the file
TWO_TRAIN = 'a.mp4,egg,cut\nb.mp4,onion,fry\nc.mp4,egg,wash\n'


def _two_heads(folder, **tables):
    return _write(folder, header=TWO, **tables)


def test_every_head_has_its_labels(tmp_path):
    files = _two_heads(tmp_path, train=TWO_TRAIN, val='d.mp4,onion,cut\n')
    data = _load(files, label_columns=HEADS)
    assert list(data.label_names.items()) == [
        ('verb', ('cut', 'fry', 'wash')),
        ('noun', ('egg', 'onion')),
    ]
    assert [list(row.label.items()) for row in data.splits['train']] == [
        [('verb', 0), ('noun', 0)],
        [('verb', 1), ('noun', 1)],
        [('verb', 2), ('noun', 0)],
    ]
    assert data.splits['val'][0].label == {'verb': 0, 'noun': 1}


def test_single_head_takes_any_column(tmp_path):
    files = _two_heads(tmp_path, train=TWO_TRAIN)
    data = _load(files, label_columns={'anything': 'noun'})
    assert data.label_names == ('egg', 'onion')
    assert [row.label for row in data.splits['train']] == [0, 1, 0]


def test_heads_may_mix_names_and_indices(tmp_path):
    files = _two_heads(tmp_path, train='a.mp4,egg,2\nb.mp4,egg,0\n')
    data = _load(files, label_columns=HEADS, num_classes={'verb': 4, 'noun': 1})
    assert data.label_names == {'verb': ('0', '1', '2', '3'), 'noun': ('egg',)}
    assert [row.label['verb'] for row in data.splits['train']] == [2, 0]
    given = {'verb': ['x', 'y', 'z'], 'noun': ['pan', 'egg']}
    data = _load(files, label_columns=HEADS, label_names=given)
    assert data.splits['train'][0].label == {'verb': 2, 'noun': 1}


@pytest.mark.parametrize(
    ('train', 'val', 'options', 'parts'),
    [
        (TWO_TRAIN, 'd.mp4,onoin,cut\n', {}, ["val.csv, line 2: noun 'onoin'", "'onion'?"]),
        (TWO_TRAIN, 'd.mp4,egg,\n', {}, ['val.csv, line 2: no verb']),
        ('a.mp4,1,cut\nb.mp4,2,fry\n', '', {}, ["column 'noun': labels run from 1 to 2"]),
        (
            'a.mp4,0,cut\nb.mp4,9,fry\n',
            '',
            {'num_classes': {'verb': 2, 'noun': 5}},
            ["column 'noun': label 9 is out of range"],
        ),
        (
            TWO_TRAIN,
            '',
            {'num_classes': {'verb': 97, 'noun': 2}},
            ['model.num_classes=97', "3 classes (cut, fry, wash, …) in column 'verb'"],
        ),
        (TWO_TRAIN, 'a.mp4,egg,cut\n', {}, ['1 videos are in both train and val']),
        (
            TWO_TRAIN,
            '',
            {'num_classes': 97},
            ['model.num_classes=97 is for a single head', 'names verb, noun'],
        ),
        (
            TWO_TRAIN,
            '',
            {'num_classes': {'verb': 3}},
            ["model.num_classes={'verb': 3} is for the heads verb, but"],
        ),
        (TWO_TRAIN, '', {'label_names': ('a', 'b')}, ['is for a single head']),
    ],
)
def test_mistake_of_one_head_names_its_column(tmp_path, train, val, options, parts):
    tables = {'train': train, 'val': val} if val else {'train': train}
    message = _error(_two_heads(tmp_path, **tables), label_columns=HEADS, **options)
    for part in parts:
        assert part in message


def test_heads_of_a_model_with_a_single_column_are_an_error(tmp_path):
    files = _write(tmp_path, train=TRAIN)
    message = _error(files, label_names={'verb': ('run',), 'noun': ('egg',)})
    assert 'is for the heads verb, noun, but data.label_columns names label' in message


def test_classes_without_videos_are_counted_per_head(tmp_path, caplog):
    given = {'verb': ['cut', 'fry', 'wash'], 'noun': ['egg', 'onion', 'pan', 'pot']}
    files = _two_heads(tmp_path, train=TWO_TRAIN)
    _load(files, label_columns=HEADS, label_names=given)
    assert "column 'noun': 2 classes have no training video: pan, pot" in caplog.text
    assert caplog.text.count('have no training video') == 1


def test_missing_videos_are_counted_per_head(tmp_path):
    files = _two_heads(tmp_path, videos='b', train=TWO_TRAIN)
    message = _error(files, label_columns=HEADS)
    assert '2 of 3 videos of the train split do not exist' in message
    assert 'by verb: cut 1 of 1, wash 1 of 1; by noun: egg 2 of 2' in message


def _listing(*labels, **options):
    lines = [
        Annotation(f'list, line {n}', {'video_path': f'{n}.mp4', 'label': label})
        for n, label in enumerate(labels, 1)
    ]
    return Annotations({'train': lines}, **options)


def test_classes_of_listing_give_the_order():
    listing = _listing('run', 'jump', label_names={'label': ('walk', 'run', 'jump')})
    data = check_annotations(listing, max_bad_fraction=1.0)
    assert data.label_names == ('walk', 'run', 'jump')
    assert [row.label for row in data.splits['train']] == [1, 2]


@pytest.mark.parametrize(('given', 'labels'), [(('jump', 'run'), [1, 0]), (('0', '1'), [0, 1])])
def test_classes_of_model_win_unless_they_are_numbers(given, labels):
    listing = _listing('run', 'jump', label_names={'label': ('run', 'jump')})
    data = check_annotations(listing, label_names=given, max_bad_fraction=1.0)
    assert [row.label for row in data.splits['train']] == labels
    assert data.label_names == (given if given[0] == 'jump' else ('run', 'jump'))


@pytest.mark.parametrize(
    ('listing', 'message'),
    [
        (_listing('run', ''), 'list, line 2: no label'),
        (_listing(), 'the split train is empty'),
        (_listing('run', label_names={'label': ('run', 'run')}), "two classes have the name 'run'"),
    ],
)
def test_unusable_listing_raises(listing, message):
    with pytest.raises(AnnotationError, match=message):
        check_annotations(listing, max_bad_fraction=1.0)


def test_part_of_frame_folder_is_read(tmp_path):
    header = 'video_path,label,start_frame,num_frames'
    (tmp_path / 'frames').mkdir()
    files = _write(tmp_path, header=header, train='frames,run,10,55\nframes,run,,\n')
    first, second = _load(files).splits['train']
    assert first == LabeledVideo(str(tmp_path / 'frames'), 0, start_frame=10, num_frames=55)
    assert second == LabeledVideo(str(tmp_path / 'frames'), 0)


@pytest.mark.parametrize(('expected', 'says'), [({}, ''), ({'train': 'x: 9'}, ' (x: 9)')])
def test_size_of_split_is_logged(caplog, expected, says):
    with caplog.at_level(logging.INFO):
        check_annotations(_listing('run', 'jump', expected=expected), max_bad_fraction=1.0)
    assert f'train: 2 videos listed, 0 found{says}' in caplog.messages


@pytest.mark.parametrize('twin', ['RUN', 'run fast', 'run_fast'])
def test_names_that_differ_in_case_or_blanks_only_are_an_error(tmp_path, twin):
    name = 'run' if twin == 'RUN' else 'run  fast'
    message = _error(_write(tmp_path, train=f'a.mp4,{name}\nb.mp4,{twin}\n'))
    assert f'line 3: label {twin!r} and {name!r} differ in case or blanks only' in message


def test_classes_of_one_or_two_videos_are_named(tmp_path, caplog):
    _load(_write(tmp_path, train='a.mp4,run\nb.mp4,run\nc.mp4,run\nd.mp4,sit\ne.mp4,wave\n'))
    assert (
        'only one or two training videos, too few to learn from: sit (1), wave (1)' in caplog.text
    )
