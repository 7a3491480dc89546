import pytest

from vivit_jax.annotations.annotation import AnnotationError
from vivit_jax.annotations.dataset import LabeledVideo

EXAMPLES = [
    dict(
        dataset='class_folders',
        files={'Train/walk/notes.txt': '', 'readme.md': '', 'Train/walk/._a.mp4': ''},
        videos='Train/walk/a.mp4\nTrain/long jump/b.AVI\nTrain/long jump/c/0001.jpg\nTrain/sit/\n'
        'validation/walk/d.webm',
        rows={
            'train': [
                LabeledVideo('Train/long jump/b.AVI', 0),
                LabeledVideo('Train/long jump/c', 0),
                LabeledVideo('Train/walk/a.mp4', 2),
            ],
            'val': [LabeledVideo('validation/walk/d.webm', 2)],
        },
        classes=('long jump', 'sit', 'walk'),
        says='left out 3 files and folders that are no videos of a class, such as',
    ),
    dict(
        dataset='class_folders',
        files={'10/notes.txt': '', 'top.mp4': '', '.git/x.mp4': '', 'docs/1.txt': ''},
        videos='10/a.mp4\n9/b.avi\n9/frames/0001.png\n9/deep/er/c.mp4\ntrain/a.mp4',
        rows={
            'train': [
                LabeledVideo('10/a.mp4', 0),
                LabeledVideo('9/b.avi', 1),
                LabeledVideo('9/frames', 1),
                LabeledVideo('train/a.mp4', 2),
            ]
        },
        classes=('10', '9', 'train'),
        says='left out 6 files and folders',
    ),
]


@pytest.mark.parametrize('example', EXAMPLES, ids=['splits', 'no splits'])
def test_rows_and_classes_are_those_of_the_folders(check_example, example):
    check_example(**example)


def test_only_folders_without_splits_ask_for_a_validation_split(read_example):
    assert read_example('class_folders', {}, 'a/1.mp4\nb/2.mp4').val_fraction == 0.2
    assert read_example('class_folders', {}, 'train/a/1.mp4').val_fraction == 0


def test_result_does_not_depend_on_the_process(check_processes):
    check_processes(EXAMPLES)


@pytest.mark.parametrize(
    ('videos', 'part'),
    [
        ('', 'in it: videos should lie in <class>/, or in train/<class>/'),
        ('a.mp4\nb.mp4', 'in it (found a.mp4, b.mp4): videos'),
        ('train/a.mp4\nval/b.mp4', 'in it (found train/a.mp4, val/b.mp4): videos'),
        ('walk/deep/er/a.mp4', 'in it: videos'),
    ],
)
def test_videos_outside_of_class_folders_are_an_error(read_example, videos, part):
    with pytest.raises(AnnotationError) as caught:
        read_example('class_folders', {'docs/notes.txt': ''}, videos)
    assert part in str(caught.value)
    assert '"video_path,label" and give --config.data.train_csv' in str(caught.value)
