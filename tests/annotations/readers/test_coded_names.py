"""Datasets whose file names encode the annotation."""

import csv
from pathlib import Path

import pytest

from vivit_jax.annotations.annotation import AnnotationError
from vivit_jax.annotations.catalog import find_dataset, read_dataset
from vivit_jax.annotations.dataset import LabeledVideo

NTU = (
    'rgb/S001C002P003R002A013_rgb.avi\nrgb/S001C001P001R001A001_rgb.avi\n'
    'rgb/S002C003P002R001A060_rgb.mp4\nrgb/S002C003P002R001A060_rgb/\n'
    'ir/S001C001P001R001A001_ir.avi\nnturgb+d_depth_masked/S001C001P001R001A002/\n'
    'README.txt\nS1C1.avi'
)
FIRST = LabeledVideo('rgb/S001C001P001R001A001_rgb.avi', 0, group='001')
MIDDLE = LabeledVideo('rgb/S001C002P003R002A013_rgb.avi', 12, group='003')
LAST = LabeledVideo('rgb/S002C003P002R001A060_rgb.mp4', 59, group='002')


def _actions(count):
    return tuple(f'A{action:03d}' for action in range(1, count + 1))


NTU_SAYS = 'left out 1 videos whose names are not like S001C002P003R002A013_rgb.avi, such as'
ETRI = (
    'RGB/A001_P001_G001_C001.mp4\nRGB/A055_P099_G002_C008.mp4\nA002_P050_G001_C001.mp4\n'
    'skeleton/A003_P001_G001_C001.avi\nx.avi'
)
ETRI_1, ETRI_2 = (
    LabeledVideo('RGB/A001_P001_G001_C001.mp4', 0, group='001'),
    LabeledVideo('A002_P050_G001_C001.mp4', 1, group='050'),
)
ETRI_55 = LabeledVideo('RGB/A055_P099_G002_C008.mp4', 54, group='099')
MSR_CLASSES = (
    *('high_arm_wave', 'horizontal_arm_wave', 'hammer', 'hand_catch', 'forward_punch'),
    *('high_throw', 'draw_x', 'draw_tick', 'draw_circle', 'hand_clap', 'two_hand_wave'),
    *('side_boxing', 'bend', 'forward_kick', 'side_kick', 'jogging', 'tennis_swing'),
    *('tennis_serve', 'golf_swing', 'pickup_and_throw'),
)

EXAMPLES = [
    {
        'dataset': dataset,
        'protocol': protocol,
        'files': files,
        'videos': videos,
        'rows': {'train': train, 'test': test},
        'classes': classes,
        'says': says,
    }
    for dataset, protocol, files, videos, train, test, classes, says in [
        ('ntu60', 'cross_subject', {}, NTU, [FIRST, LAST], [MIDDLE], _actions(60), NTU_SAYS),
        ('ntu60', 'cross_view', {}, NTU, [MIDDLE, LAST], [FIRST], _actions(60), NTU_SAYS),
        (
            'ntu60',
            '',  # lists, whose lines end in a space, override the names
            {
                '@CS/train.txt': 'S001C002P003R002A013_rgb 103 12 \n'
                'S002C001P002R001A060_rgb 80 59 \n',
                '@CS/valid.txt': 'S001C001P009R001A002_rgb 90 1 \n',
            },
            NTU + '\nframes/S002C001P002R001A060_rgb/',
            [
                MIDDLE,
                LabeledVideo('frames/S002C001P002R001A060_rgb', 59, num_frames=80, group='002'),
            ],
            [LabeledVideo('S001C001P009R001A002_rgb', 1, num_frames=90, group='009')],
            _actions(60),
            '1 of 1 videos of the test split do not exist',
        ),
        (
            'ntu120',
            'cross_setup',
            {},
            NTU + '\nS032C001P106R002A120/',
            [LAST, LabeledVideo('S032C001P106R002A120', 119, group='106')],
            [FIRST, MIDDLE],
            _actions(120),
            'left out 1 videos',
        ),
        ('etri_activity3d', '', {}, ETRI, [ETRI_1, ETRI_2], [ETRI_55], _actions(55), 'such as'),
        (
            'etri_activity3d',
            'cross_age',
            {},
            ETRI,
            [ETRI_1, ETRI_2],
            [ETRI_55],
            _actions(55),
            'such as',
        ),
        (
            'msr_action3d',
            '',
            {},
            'rgb/a01_s01_e01.mp4\nrgb/a20_s10_e03_rgb.avi\ndepth/a01_s01_e01.mkv\na1.mp4',
            [LabeledVideo('rgb/a01_s01_e01.mp4', 0, group='01')],
            [LabeledVideo('rgb/a20_s10_e03_rgb.avi', 19, group='10')],
            MSR_CLASSES,
            'left out 1 videos whose names are not like a01_s01_e01_rgb.avi',
        ),
    ]
]


@pytest.mark.parametrize('example', EXAMPLES, ids=lambda x: f'{x["dataset"]} {x["protocol"]}')
def test_rows_and_classes_are_those_of_the_names(check_example, example):
    check_example(**example)


def test_result_does_not_depend_on_the_process(check_processes):
    check_processes(EXAMPLES)


def _subjects(read_example, dataset, last):
    names = [f'S002C001P{subject:03d}R001A001_rgb.avi' for subject in range(1, last + 1)]
    splits = read_example(dataset, {}, '\n'.join(names), 'cross_subject').splits
    return {
        split: [int(Path(line.place).name[9:12]) for line in lines]
        for split, lines in splits.items()
    }


@pytest.mark.parametrize(
    ('dataset', 'last', 'num_train', 'train', 'test'),
    [
        ('ntu60', 40, 20, {1, 2, 9, 13, 19, 38}, {3, 6, 7, 10, 12, 20, 26, 36, 37, 39, 40}),
        ('ntu120', 106, 53, {1, 38, 45, 59, 86, 95, 103}, {3, 40, 48, 51, 60, 79, 96, 99, 106}),
    ],
)
def test_half_of_the_people_train(read_example, dataset, last, num_train, train, test):
    subjects = _subjects(read_example, dataset, last)
    assert len(subjects['train']) == num_train and len(subjects['test']) == last - num_train
    assert train <= set(subjects['train']) and test <= set(subjects['test'])


def test_two_of_three_cameras_train():
    # Each of three cameras saw each of the 56,880 / 3 samples.
    sizes = find_dataset('ntu60').splits['cross_view']
    assert sizes == {'train': 2 * 56_880 // 3, 'test': 56_880 // 3}


def test_etri_keeps_a_third_of_the_people_for_the_test(read_example):
    names = [f'A001_P{subject:03d}_G001_C001.mp4' for subject in range(1, 101)]
    splits = read_example('etri_activity3d', {}, '\n'.join(names)).splits
    assert [int(Path(line.place).name[6:9]) for line in splits['test']] == list(range(3, 100, 3))
    assert len(splits['train']) == 67


def test_videos_of_ntu120_are_none_of_ntu60(read_example, caplog):
    videos = 'S017C001P001R001A001_rgb.avi\nS018C001P001R001A061_rgb.avi'
    splits = read_example('ntu60', {}, videos).splits
    assert [len(lines) for lines in splits.values()] == [1]
    assert 'left out 1 videos' in caplog.text and 'S018C001P001R001A061_rgb.avi' in caplog.text


@pytest.mark.parametrize(
    ('dataset', 'files', 'videos', 'part'),
    [
        ('ntu60', {}, 'S001C001P001R001A061_rgb.avi', 'A061_rgb.avi: label 61 is none of 1 … 60'),
        ('ntu120', {}, 'S001C001P001R001A000_rgb.avi', 'label 0 is none of 1 … 120'),
        ('etri_activity3d', {}, 'A056_P001_G001_C001.mp4', 'label 56 is none of 1 … 55'),
        ('msr_action3d', {}, 'a21_s01_e01.mp4', 'label 21 is none of 1 … 20'),
        ('msr_action3d', {}, 'a.mp4', 'no videos of msr_action3d under'),
        (
            'ntu60',
            {'@CS/train.txt': 'S001C001P001R001A060_rgb 103 60 \n'},
            '',
            "train.txt, line 1: label '60' is none of 0 … 59",
        ),
        ('ntu60', {'@CS/train.txt': '\nS001 103 0\n'}, '', 'train.txt, line 2: should be "name'),
    ],
)
def test_impossible_name_or_label_raises(read_example, dataset, files, videos, part):
    with pytest.raises(AnnotationError) as caught:
        read_example(dataset, files, videos)
    assert part in str(caught.value)


def test_msr_action3d_is_split_like_its_csv_files(shared):
    folder = shared / 'data' / 'msr_action3d'
    if not folder.is_dir():
        pytest.skip(f'no videos at {folder}')
    listing = read_dataset(find_dataset('msr_action3d'), folder)
    for split, lines in listing.splits.items():
        with open(folder / f'{split}.csv', encoding='utf-8') as file:
            known = {row['video_path']: row['label'] for row in csv.DictReader(file)}
        read = {line.values['video_path']: line.values['label'] for line in lines}
        assert read == {str(folder / path): label for path, label in known.items()}
