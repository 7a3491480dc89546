"""Which videos each modality sees, in lists and in datasets that have depth."""

import pytest

from vivit_jax.annotations.annotation import Annotation, AnnotationError, Annotations
from vivit_jax.annotations.catalog import find_dataset, read_dataset
from vivit_jax.annotations.check import check_annotations
from vivit_jax.annotations.csv_text import videos_csv
from vivit_jax.annotations.depth_videos import choose_videos
from vivit_jax.annotations.readers.csv_files import read_csv_files


def make(root, *paths):
    for path in paths:
        file = root / path
        if path.endswith('/'):
            file.mkdir(parents=True)
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b'x')


def videos(annotations, modality, split='train'):
    """(video, depth) of every line of a split, for a modality."""
    found = check_annotations(choose_videos(annotations, modality), max_bad_fraction=0.0)
    return [(video.video_path, video.depth_path) for video in found.splits[split]]


@pytest.fixture
def annotations():
    values = {'video_path': 'a.mp4', 'depth_path': 'a.png', 'label': 'x'}
    other = {'video_path': 'b.png', 'depth_path': 'b.png', 'label': 'y'}  # depth alone
    return Annotations({'train': [Annotation('1', values), Annotation('2', other)]})


@pytest.mark.parametrize(
    ('modality', 'expected'),
    [
        ('rgb', [('a.mp4', None)]),
        ('rgbd', [('a.mp4', 'a.png')]),
        ('depth', [('a.png', 'a.png'), ('b.png', 'b.png')]),
    ],
)
def test_modality_chooses_the_videos(annotations, modality, expected):
    lines = choose_videos(annotations, modality).splits['train']
    found = [(line.values['video_path'], line.values.get('depth_path')) for line in lines]
    assert found == expected


def test_video_without_depth_is_an_error():
    annotations = Annotations({'val': [Annotation('a.csv, line 2', {'video_path': 'a.mp4'})]})
    for modality in ('depth', 'rgbd'):
        with pytest.raises(AnnotationError, match=r'a.csv, line 2: no depth_path, which .*depth'):
            choose_videos(annotations, modality)


def test_depth_alone_is_an_error_for_rgb():
    values = {'video_path': 'a.mkv', 'depth_path': 'a.mkv'}
    with pytest.raises(AnnotationError, match=r"set model\.modality='depth'"):
        choose_videos(Annotations({'train': [Annotation('', values)]}), 'rgb')


def test_depth_that_does_not_exist_is_missing(tmp_path):
    make(tmp_path, 'a.mp4', 'b.mp4', 'b.mkv')
    (tmp_path / 'train.csv').write_text(
        'video_path,depth_path,label\na.mp4,a.mkv,x\nb.mp4,b.mkv,y\n'
    )
    found = read_csv_files({'train': str(tmp_path / 'train.csv')}, '', ['label'])
    with pytest.raises(AnnotationError, match=r'1 of 2 videos .*, such as .*/a.mkv'):
        videos(found, 'rgbd')


def test_written_list_names_the_depth_and_is_read_again(tmp_path):
    make(tmp_path, 'a.mp4', 'a.mkv', 'b.mp4', 'b.mkv')
    text = 'video_path,depth_path,label\na.mp4,a.mkv,x\nb.mp4,b.mkv,y\n'
    (tmp_path / 'train.csv').write_text(text)
    for modality in ('depth', 'rgbd'):
        found = read_csv_files({'train': str(tmp_path / 'train.csv')}, '', ['label'])
        data = check_annotations(choose_videos(found, modality))
        again = tmp_path / 'again.csv'
        again.write_text(videos_csv(data.splits['train'], {'label': data.label_names}, ''))
        lines = read_csv_files({'train': str(again)}, '', ['label'])
        assert videos(lines, modality) == videos(found, modality)


def test_list_of_depth_alone_needs_no_other_column(tmp_path):
    make(tmp_path, 'a.mkv', 'b.mkv')
    (tmp_path / 'train.csv').write_text('depth_path,label\na.mkv,x\nb.mkv,y\n')
    found = read_csv_files({'train': str(tmp_path / 'train.csv')}, '', ['label'])
    expected = [(str(tmp_path / name),) * 2 for name in ('a.mkv', 'b.mkv')]
    assert videos(found, 'depth') == expected


@pytest.mark.parametrize(
    ('dataset', 'files'),
    [
        (
            'ntu60',
            {
                'S001C001P001R001A001': (
                    'nturgb+d_rgb/S001C001P001R001A001_rgb.avi',
                    'nturgb+d_depth_masked/S001C001P001R001A001/',
                ),
                'S001C001P002R001A002': (
                    'nturgb+d_rgb/S001C001P002R001A002_rgb.avi',
                    'nturgb+d_depth_masked/S001C001P002R001A002/',
                ),
            },
        ),
        (
            'msr_action3d',
            {
                'a01_s01': ('rgb/a01_s01_e01.mp4', 'depth/a01_s01_e01.mkv'),
                'a02_s03': ('a02_s03_e01_rgb.avi', 'a02_s03_e01_depth.mkv'),
            },
        ),
    ],
)
def test_depth_is_found_by_the_code_of_its_name(tmp_path, dataset, files):
    make(tmp_path, *(path for pair in files.values() for path in pair))
    skeleton = 'nturgb+d_skeletons/S001C001P001R001A003.avi'
    if dataset == 'ntu60':
        make(tmp_path, skeleton)
    annotations = read_dataset(find_dataset(dataset), tmp_path)
    lines = [line.values for split in annotations.splits.values() for line in split]
    found = {line['video_path']: line.get('depth_path') for line in lines}
    assert found == {
        str(tmp_path / video): str(tmp_path / depth).rstrip('/') for video, depth in files.values()
    }


def test_depth_without_its_colour_stands_for_itself(tmp_path):
    make(tmp_path, 'depth/a01_s01_e01.mkv')
    annotations = read_dataset(find_dataset('msr_action3d'), tmp_path)
    [line] = annotations.splits['train']
    path = str(tmp_path / 'depth/a01_s01_e01.mkv')
    assert (line.values['video_path'], line.values['depth_path']) == (path, path)


@pytest.mark.parametrize(
    ('lists', 'line', 'video', 'depth'),
    [
        (
            'train_list.txt',
            'train/001/M_00001.avi train/001/K_00001.avi 26',
            'train/001/M_00001.avi',
            'train/001/K_00001.avi',
        ),
        ('train.txt', 'train/M_01/M_00001 55 25', 'train/M_01/M_00001/', 'train/M_01/K_00001/'),
    ],
)
def test_isogd_names_or_derives_the_depth(tmp_path, lists, line, video, depth):
    make(tmp_path, video, depth)
    (tmp_path / lists).write_text(f'{line}\n')
    annotations = read_dataset(find_dataset('isogd'), tmp_path)
    [found] = annotations.splits['train']
    assert found.values['video_path'] == str(tmp_path / video).rstrip('/')
    assert found.values['depth_path'] == str(tmp_path / depth).rstrip('/')
