"""Lists that belong to no particular dataset."""

import pytest

from vivit_jax.annotations.annotation import AnnotationError
from vivit_jax.annotations.check import check_annotations
from vivit_jax.annotations.dataset import LabeledVideo

EXAMPLES = [
    dict(
        dataset='mmaction2',
        files={
            'my_train_split_2_videos.txt': 'some/path/000.mp4 1\na b/c 12.avi 0\r\n',
            'my_train_split_2_rawframes.txt': 'some/directory-1 163 1\n',
            'my_train_split_1_videos.txt': 'other.mp4 0\n',
            'my_val_split_2_videos.txt': 'x, 3.mp4 1\nlost.mp4 2\n',
            'label_map.txt': 'a\nb\n',
        },
        videos='some/path/000.mp4\na b/c 12.mkv\nx, 3.mp4',
        rows={
            'train': [LabeledVideo('some/path/000.mp4', 1), LabeledVideo('a b/c 12.mkv', 0)],
            'val': [LabeledVideo('x, 3.mp4', 1), LabeledVideo('lost.mp4', 2)],
        },
        classes=3,
        protocol='2',
        says='1 of 2 videos of the val split',
    ),
    dict(
        dataset='mmaction2',
        files={
            'my_train_list_rawframes.txt': 'some/directory-1 163 1\nb 5 0\n',
            'mit_val_video_anno.txt': 'imgs 2 5 0\nimgs 127 1000 1\n',
            'my_test_list_videos.txt': '000.mp4\n',
        },
        videos='b/\nimgs/',
        rows={
            'train': [
                LabeledVideo('some/directory-1', 1, num_frames=163),
                LabeledVideo('b', 0, num_frames=5),
            ],
            'val': [
                LabeledVideo('imgs', 0, start_frame=2, num_frames=5),
                LabeledVideo('imgs', 1, start_frame=127, num_frames=1000),
            ],
        },
        classes=2,
        says='1 of 2 videos of the train split',
    ),
    dict(
        dataset='mmaction2',
        files={
            'k_train.json': '[{"filename": "a.mp4", "label": [1]}, '
            '{"filename": "b.mp4", "label": 0}]',
            'k_val.json': '[{"frame_dir": "d/e", "total_frames": 163, "label": [1]}]',
            'k_test.json': '[{"filename": "c.mp4"}]',
        },
        videos='a.webm\nb.mp4',
        rows={
            'train': [LabeledVideo('a.webm', 1), LabeledVideo('b.mp4', 0)],
            'val': [LabeledVideo('d/e', 1, num_frames=163)],
        },
        classes=2,
        says='1 of 1 videos of the val split',
    ),
    dict(
        dataset='pyslowfast',
        files={
            'train.csv': 'a b/000.mp4 1\nc,d.avi,0\n"e, f.mp4"\t2\n',
            'val.csv': 'g.mp4,  1\r\n',
            'test.csv': 'lost.mp4 0\n',
        },
        videos='a b/000.mp4\nc,d.avi\ne, f.mp4\ng.mkv',
        rows={
            'train': [
                LabeledVideo('a b/000.mp4', 1),
                LabeledVideo('c,d.avi', 0),
                LabeledVideo('e, f.mp4', 2),
            ],
            'val': [LabeledVideo('g.mkv', 1)],
            'test': [LabeledVideo('lost.mp4', 0)],
        },
        classes=3,
        says='1 of 1 videos of the test split',
    ),
    dict(
        dataset='pyslowfast',
        files={
            'train.csv': 'original_vido_id video_id frame_id path labels\n'
            '7 0 0 7/7_000001.jpg "1"\n7 0 1 7/7_000002.jpg "1"\n8 1 0 8/8_000001.jpg "0"\n',
            'val.csv': 'original_vido_id video_id frame_id path labels\n9 0 0 9/9_000001.jpg ""\n',
        },
        videos='7/',
        rows={'train': [LabeledVideo('7', 1, num_frames=2), LabeledVideo('8', 0, num_frames=1)]},
        classes=2,
        says='1 of 2 videos of the train split',
    ),
]


@pytest.mark.parametrize('example', EXAMPLES, ids=lambda x: x['dataset'])
def test_rows_and_classes_are_those_of_the_files(check_example, example):
    check_example(**example)


def test_result_does_not_depend_on_the_process(check_processes):
    check_processes(EXAMPLES)


VIDEOS, FRAMES = 'x_train_list_videos.txt', 'x_train_list_rawframes.txt'
SEVERAL = 'several labels for a video are not supported'


@pytest.mark.parametrize(
    ('dataset', 'files', 'parts'),
    [
        ('mmaction2', {VIDEOS: 'a.mp4 0\ntest.mp4 0 2 4\n'}, [f'{VIDEOS}, line 2: {SEVERAL}']),
        ('mmaction2', {FRAMES: 'some/directory-1 163 1 3 5\n'}, [f'{FRAMES}, line 1: {SEVERAL}']),
        ('mmaction2', {FRAMES: 'a 163 1\nb 163 1 3\n'}, [FRAMES, 'lines with 2 and 3', SEVERAL]),
        (
            'mmaction2',
            {'x_train.json': '[{"filename": "a", "label": [1, 2]}]'},
            ['entry 1', SEVERAL],
        ),
        ('mmaction2', {'x_train.json': '[{"label": [1]}]'}, ['entry 1: has neither "filename"']),
        (
            'mmaction2',
            {'x_train.json': '[{"filename": "a", "label": "run"}]'},
            ["label 'run' is no"],
        ),
        ('mmaction2', {'x_train.json': '{}'}, ['should hold a list, not a dict']),
        ('mmaction2', {'x_train.json': '[{'}, ['x_train.json: is not JSON']),
        ('mmaction2', {VIDEOS: 'a.mp4\n'}, ['has no video with a label']),
        (
            'mmaction2',
            {VIDEOS: 'a.mp4 0\n', 'y_train_list_videos.txt': 'a.mp4 0\n'},
            ["the list of the split 'train'", f'{VIDEOS} or y_train_list_videos.txt? Keep one'],
        ),
        (
            'mmaction2',
            {'u_train_split_1_videos.txt': 'a.mp4 0\n'},
            ['no annotation files in', 'train, val or test and without split_1', 'protocol'],
        ),
        ('pyslowfast', {'train.csv': 'a.mp4 0 2\n'}, [f'line 1: {SEVERAL}']),
        (
            'pyslowfast',
            {'train.csv': 'original_vido_id video_id frame_id path labels\n7 0 0 7/1.jpg "1,5"\n'},
            ['train.csv, line 2', SEVERAL],
        ),
        (
            'pyslowfast',
            {'train.csv': 'original_vido_id video_id frame_id path\n'},
            ["no column ['labels']"],
        ),
        ('pyslowfast', {}, ['no annotation files in', 'train.csv', 'and in annotations/']),
    ],
)
def test_unusable_list_raises_place_and_reason(read_example, dataset, files, parts):
    with pytest.raises(AnnotationError) as caught:
        read_example(dataset, files)
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ('lines', 'part'),
    [('a.mp4 1\nb.mp4 2\n', 'look 1-based'), ('a.mp4 0\nb.mp4\n', 'line 2: no label')],
)
def test_labels_of_a_list_are_checked(read_example, lines, part):
    listing = read_example('pyslowfast', {'train.csv': lines})
    with pytest.raises(AnnotationError) as caught:
        check_annotations(listing, max_bad_fraction=1.0)
    assert part in str(caught.value)


def test_absolute_paths_stay(read_example, tmp_path):
    path = str(tmp_path / 'elsewhere' / 'a.mp4')
    listing = read_example('pyslowfast', {'train.csv': f'{path} 0'}, 'elsewhere/a.mp4')
    assert listing.splits['train'][0].values['video_path'] == path
