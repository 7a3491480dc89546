import csv
import dataclasses
import os
import shutil

import numpy as np
import pytest

from vivit_jax.annotations.dataset import Dataset, LabeledVideo
from vivit_jax.batches.sources import VideoFiles
from vivit_jax.errors import UserError
from vivit_jax.prepare.check import check
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.video.synthetic import write_video

SPEC = Preprocessing(num_frames=4, frame_stride=2, short_side=16, crop_size=16)  # spans 7 frames


def _read(path):
    with path.open(newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def _noise(count, height=32, width=40):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """A folder with good, short and broken videos."""
    folder = tmp_path_factory.mktemp('videos')
    for name, count in (('good.mp4', 20), ('other.mp4', 7), ('short.mp4', 6)):
        write_video(folder / name, _noise(count))
    (folder / 'empty.mp4').touch()
    # The index of an MP4 lies at its end, and damage in the middle shows in decoding only.
    content = (folder / 'good.mp4').read_bytes()
    (folder / 'cut.mp4').write_bytes(content[:-1000])
    write_video(folder / 'holes.avi', _noise(20))
    content = bytearray((folder / 'holes.avi').read_bytes())
    start = content.index(b'movi') + 4
    content[start + 60 : start + 20_000] = bytes(19_940)
    (folder / 'holes.avi').write_bytes(content)
    (folder / 'frames').mkdir()
    return folder


def _videos(folder):
    def rows(*names):
        return VideoFiles(
            [LabeledVideo(str(folder / name), {'verb': v, 'noun': n}) for name, v, n in names]
        )

    train = rows(
        ('good.mp4', 0, 0),
        ('short.mp4', 0, 1),
        ('cut.mp4', 1, 0),
        ('empty.mp4', 1, 1),
        ('holes.avi', 1, 1),
        ('frames', 0, 1),
        ('gone.mp4', 0, 1),
    )
    val = rows(('other.mp4', 1, 0))
    part = LabeledVideo(val.videos[0].video_path, {'verb': 0, 'noun': 0}, 0.25, 0.5)
    names = {'verb': ('take', 'put'), 'noun': ('cup, red', 'plate')}
    return Dataset({'train': train, 'val': VideoFiles([*val.videos, part])}, names)


def _check(folder, output, expected=None):
    videos = dataclasses.replace(_videos(folder), expected=expected or {})
    check(videos, SPEC, output, label_columns=('verb', 'noun'), num_workers=2)


@pytest.fixture(scope='module')
def checked(made, tmp_path_factory):
    output = tmp_path_factory.mktemp('parent') / 'checked'
    _check(made, output)
    return output


@pytest.fixture
def again(checked, tmp_path):
    """A copy to call again in."""
    return shutil.copytree(checked, tmp_path / 'checked')


def _statuses(output):
    return {
        (os.path.basename(line['video_path']), line['part']): line['status']
        for line in _read(output / 'checked.csv')
    }


def test_every_video_has_its_status(checked):
    assert _statuses(checked) == {
        ('good.mp4', ''): 'ok',
        ('short.mp4', ''): 'short',
        ('cut.mp4', ''): 'corrupt',
        ('empty.mp4', ''): 'corrupt',
        ('holes.avi', ''): 'corrupt',
        ('frames', ''): 'corrupt',
        ('gone.mp4', ''): 'missing',
        ('other.mp4', ''): 'ok',
        ('other.mp4', 'start_sec=0.25 end_sec=0.5'): 'short',
    }


def test_facts_of_a_video_are_those_it_was_made_with(checked, made):
    lines = _read(checked / 'checked.csv')
    (line,) = (line for line in lines if line['video_path'].endswith('good.mp4'))
    assert int(line['bytes']) == (made / 'good.mp4').stat().st_size
    assert int(line['mtime_ns']) == (made / 'good.mp4').stat().st_mtime_ns
    found = [line[name] for name in ('frames', 'width', 'height', 'reason')]
    assert found == ['20', '40', '32', '']
    assert float(line['fps']) == pytest.approx(12, abs=0.01)
    assert float(line['seconds']) == pytest.approx(20 / 12, abs=0.01)


@pytest.mark.parametrize(
    ('file', 'expected'),
    [
        ('missing.csv', [('train', 'gone.mp4', 'take', 'plate', 'no such file')]),
        (
            'short.csv',
            [
                ('train', 'short.mp4', 'take', 'plate', '6 frames, a clip needs 7'),
                ('val', 'other.mp4', 'take', 'cup, red', '3 frames, a clip needs 7'),
            ],
        ),
    ],
)
def test_unusual_videos_are_listed_with_labels_and_reason(checked, file, expected):
    lines = _read(checked / file)
    names = ('split', 'video_path', 'verb', 'noun', 'reason')
    assert [
        tuple(
            os.path.basename(line[name]) if name == 'video_path' else line[name] for name in names
        )
        for line in lines
    ] == expected


def test_corrupt_videos_have_a_reason_each(checked):
    reasons = {
        os.path.basename(line['video_path']): line['reason']
        for line in _read(checked / 'corrupt.csv')
    }
    assert reasons['empty.mp4'] == 'the file is empty (0 bytes)'
    assert 'not a video file, or damaged' in reasons['cut.mp4']
    assert reasons['frames'].startswith('has no frames')
    assert reasons['holes.avi']


def test_usable_videos_are_a_list_to_train_with(checked, made):
    assert _read(checked / 'train_ok.csv') == [
        {'video_path': str(made / 'good.mp4'), 'verb': 'take', 'noun': 'cup, red'},
        {'video_path': str(made / 'short.mp4'), 'verb': 'take', 'noun': 'plate'},
    ]
    part = {'verb': 'take', 'noun': 'cup, red', 'start_sec': '0.25', 'end_sec': '0.5'}
    whole = {'verb': 'put', 'noun': 'cup, red', 'start_sec': '', 'end_sec': ''}
    path = str(made / 'other.mp4')
    found = _read(checked / 'val_ok.csv')
    assert found == [{'video_path': path, **whole}, {'video_path': path, **part}]
    assert (checked / 'label_map_noun.txt').read_text() == 'cup, red\nplate\n'


def test_classes_are_counted(checked):
    lines = [list(line.values()) for line in _read(checked / 'classes.csv')]
    assert lines[:4] == [
        ['train', 'verb', 'take', '4', '3', '1', '1'],
        ['train', 'verb', 'put', '3', '3', '0', '0'],
        ['train', 'noun', 'cup, red', '2', '2', '1', '0'],
        ['train', 'noun', 'plate', '5', '4', '0', '1'],
    ]
    assert lines[4] == ['val', 'verb', 'take', '1', '1', '0', '1']


def test_summary_has_counts_losses_and_published_sizes(again, made, capsys):
    _check(made, again, expected={'train': 'official: 8'})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        'train: 7 listed (official: 8), 6 found: 1 ok, 1 short, 4 corrupt; 1 missing'
    )
    assert lines[1].split(': ')[1].startswith('plate 4 of 5, put 3 of 3')
    assert lines[2] == 'val: 2 listed, 2 found: 1 ok, 1 short, 0 corrupt; 0 missing'


def test_second_call_repeats_only_what_has_changed(again, made, tmp_path):
    folder = shutil.copytree(made, tmp_path / 'videos')
    path = again / 'checked.csv'
    text = path.read_text().replace(str(made), str(folder))
    # The check finds this only if it reuses the line.
    text = text.replace(',40,32,', ',4444,32,')
    # A kill cut the last line off.
    stat = (folder / 'other.mp4').stat()
    text += f'{folder}/other.mp4,,{stat.st_size},{stat.st_mtime_ns},ok,2'
    path.write_text(text)
    write_video(folder / 'cut.mp4', _noise(9))
    write_video(folder / 'gone.mp4', _noise(8))
    os.utime(folder / 'short.mp4', ns=(0, 0))
    _check(folder, again)
    widths = {
        (os.path.basename(line['video_path']), line['part']): line['width'] for line in _read(path)
    }
    assert widths['good.mp4', ''] == widths['other.mp4', ''] == '4444'
    for name in ('cut.mp4', 'gone.mp4', 'short.mp4'):
        assert widths[name, ''] == '40'
    statuses = _statuses(again)
    assert len(statuses) == 9
    for name in ('cut.mp4', 'gone.mp4', 'other.mp4'):
        assert statuses[name, ''] == 'ok'
    assert _read(again / 'missing.csv') == []


def test_results_are_kept_when_stopped(made, tmp_path, monkeypatch):
    def stopped(function, tasks, num_workers):
        yield 0, next(iter(function(tasks[0])))
        raise KeyboardInterrupt

    monkeypatch.setattr('vivit_jax.prepare.check.run_tasks', stopped)
    with pytest.raises(KeyboardInterrupt):
        _check(made, tmp_path)
    assert _statuses(tmp_path) == {('gone.mp4', ''): 'missing', ('good.mp4', ''): 'ok'}
    assert not (tmp_path / 'train_ok.csv').exists()


def test_other_preprocessing_needs_no_new_decoding(again, made, monkeypatch):
    def nothing(function, tasks, num_workers):
        assert not tasks
        return iter(())

    monkeypatch.setattr('vivit_jax.prepare.check.run_tasks', nothing)
    long_clips = Preprocessing(num_frames=8, frame_stride=3)  # of 22 frames
    options = {'label_columns': ('verb', 'noun'), 'num_workers': 1}
    check(_videos(made), long_clips, again, **options)
    assert _statuses(again)['good.mp4', ''] == 'short'


@pytest.mark.parametrize(
    ('spec', 'needed'),
    [
        (Preprocessing(num_frames=21, sampling='segments'), 21),
        (Preprocessing(num_frames=4, frame_stride=3, sampling='units', num_units=2), 24),
        (Preprocessing(num_frames=21, frame_stride=3, short_video='smaller_stride'), 21),
    ],
)
def test_needed_frames_follow_the_sampling(again, made, spec, needed):
    check(_videos(made), spec, again, label_columns=('verb', 'noun'), num_workers=1)
    assert _read(again / 'short.csv')[0]['reason'] == f'20 frames, a clip needs {needed}'


def test_a_decoder_that_dies_marks_its_video(made, tmp_path, monkeypatch):
    from vivit_jax.prepare.workers import Died

    def dies(function, tasks, num_workers):
        for place, _ in enumerate(tasks):
            yield place, Died('the process that read it died (SIGSEGV)')

    monkeypatch.setattr('vivit_jax.prepare.check.run_tasks', dies)
    _check(made, tmp_path)
    lines = _read(tmp_path / 'corrupt.csv')
    assert len(lines) == 8
    assert {line['reason'] for line in lines} == {'the process that read it died (SIGSEGV)'}


def test_a_bug_of_the_decoder_marks_its_video_too(made, tmp_path, monkeypatch):
    def broken(source, index):
        raise AttributeError('no codec')

    def in_turn(function, tasks, num_workers):
        return ((i, value) for i, task in enumerate(tasks) for value in function(task))

    monkeypatch.setattr(VideoFiles, 'open', broken)
    monkeypatch.setattr('vivit_jax.prepare.check.run_tasks', in_turn)
    _check(made, tmp_path)
    lines = _read(tmp_path / 'corrupt.csv')
    assert {line['reason'] for line in lines} == {"AttributeError('no codec')"}


def test_records_are_not_for_it(tmp_path):
    videos = Dataset({'train': object()}, ('a',))
    with pytest.raises(UserError, match=r'these videos are records'):
        check(videos, SPEC, tmp_path, label_columns=('label',), num_workers=1)
