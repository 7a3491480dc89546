import csv

import numpy as np
import pytest

from vivit_jax.video import synthetic
from vivit_jax.video.synthetic import (
    MOTIONS,
    SHAPES,
    SyntheticVideos,
    create_synthetic_videos,
    render,
)
from vivit_jax.video.video_reader import VideoReader

FEW = SyntheticVideos(num_train=3, num_val=2, num_test=1, num_frames=4, height=16, width=20)
# Big enough to measure motion.
LARGE = SyntheticVideos(num_frames=9, height=64, width=80)
OPPOSITES = [
    ('move_left', 'move_right'),
    ('move_up', 'move_down'),
    ('approach', 'recede'),
    ('rotate_clockwise', 'rotate_counterclockwise'),
]


def _content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob('*')
        if path.is_file()
    }


def _rng(seed=0):
    return np.random.default_rng(seed)


def test_same_seed_gives_same_files(tmp_path):
    first = create_synthetic_videos(FEW, str(tmp_path / 'a'))
    second = create_synthetic_videos(FEW, str(tmp_path / 'b'))
    content = _content(first)
    assert len(content) == 9  # six videos, three lists
    assert content == _content(second)
    # No video of any split is the copy of another.
    assert len(set(content.values())) == 9


def test_other_seed_gives_other_videos(tmp_path):
    first = create_synthetic_videos(FEW, str(tmp_path))
    other = SyntheticVideos(**{**vars(FEW), 'seed': 1})
    second = create_synthetic_videos(other, str(tmp_path))
    assert first != second
    videos = [_content(folder / 'train') for folder in (first, second)]
    assert videos[0].keys() == videos[1].keys()
    assert not set(videos[0].values()) & set(videos[1].values())


def test_cached_videos_are_not_rendered_again(tmp_path, monkeypatch):
    folder = create_synthetic_videos(FEW, str(tmp_path))
    monkeypatch.setattr(synthetic, 'write_video', None)
    assert create_synthetic_videos(FEW, str(tmp_path)) == folder
    assert len(_content(folder)) == 9


def test_cache_lies_in_the_users_by_default(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert create_synthetic_videos(FEW).parent == tmp_path / 'vivit_jax'


def test_interrupted_rendering_leaves_nothing(tmp_path, monkeypatch):
    write = synthetic.write_video
    written = []

    def interrupted(path, video):
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(path)
        write(path, video)

    with monkeypatch.context() as patch:
        patch.setattr(synthetic, 'write_video', interrupted)
        with pytest.raises(KeyboardInterrupt):
            create_synthetic_videos(FEW, str(tmp_path))
    assert list(tmp_path.iterdir()) == []
    # Otherwise the place of the interruption would prove nothing.
    assert len(_content(create_synthetic_videos(FEW, str(tmp_path)))) == 9


def test_two_renderings_at_once_leave_one_folder(tmp_path, monkeypatch):
    name = create_synthetic_videos(FEW, str(tmp_path / 'elsewhere')).name
    write = synthetic.write_video

    def write_while_other_finishes(path, video):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / 'of_the_other').touch()
        write(path, video)

    monkeypatch.setattr(synthetic, 'write_video', write_while_other_finishes)
    folder = create_synthetic_videos(FEW, str(tmp_path))
    assert [path.name for path in folder.iterdir()] == ['of_the_other']
    assert sorted(path.name for path in tmp_path.iterdir()) == ['elsewhere', name]


@pytest.mark.parametrize(('split', 'size'), [('train', 24), ('val', 8), ('test', 8)])
def test_lists_name_every_video_and_motion(synthetic_folder, split, size):
    with (synthetic_folder / f'{split}.csv').open(newline='') as file:
        rows = list(csv.DictReader(file))
    listed = [row['video_path'] for row in rows]
    assert len(listed) == size
    found = (synthetic_folder / split).iterdir()
    assert sorted(listed) == sorted(f'{split}/{path.name}' for path in found)
    labels = [row['label'] for row in rows]
    assert {label: labels.count(label) for label in labels} == dict.fromkeys(MOTIONS, size // 8)
    assert {row['sprite'] for row in rows} <= set(SHAPES)


def test_videos_have_the_size_asked_for(synthetic_folder):
    for path in (synthetic_folder / 'val').iterdir():
        with VideoReader(path) as video:
            assert video.read(range(len(video))).shape == (10, 32, 40, 3)
            np.testing.assert_allclose(np.diff(video.timestamps_sec), 1 / 12, atol=1e-4)


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize('pair', OPPOSITES, ids='-'.join)
def test_reversed_motion_is_its_opposite(pair, shape):
    # Single frames tell nothing, because they occur in both classes equally often.
    for seed in range(3):
        forth, back = (render(motion, shape, LARGE, _rng(seed))[0] for motion in pair)
        difference = np.abs(forth[::-1].astype(int) - back).max(axis=-1)
        # A pixel on the sprite's very edge may fall to the other side.
        assert (difference > 1).mean() < 1e-4
        assert (np.abs(forth.astype(int) - back).max(axis=-1) > 1).mean() > 0.01


@pytest.mark.parametrize('motion', MOTIONS)
def test_sprite_moves_as_its_label_says(motion):
    y, x = np.mgrid[: LARGE.height, : LARGE.width]
    votes = []
    for seed in range(20):
        bright = render(motion, 'bar', LARGE, _rng(seed))[0].mean(-1) > 125
        area = bright.sum((1, 2))
        x0, y0 = ((bright * a).sum((1, 2)) / area for a in (x, y))
        dx, dy = x - x0[:, None, None], y - y0[:, None, None]
        # Direction of the long side of the bar, from the second moments.
        angle = np.arctan2(
            2 * (bright * dx * dy).sum((1, 2)), (bright * (dx**2 - dy**2)).sum((1, 2))
        )
        turn = np.unwrap(angle)
        votes.append([a[-1] - a[0] for a in (x0, y0, np.log(area) / 2, turn)])
    # In units of what a video of average speed does.
    change = np.median(votes, axis=0) / [LARGE.height / 2, LARGE.height / 2, 1, 1.2 * np.pi]
    expected = {
        'move_right': [1, 0, 0, 0],
        'move_left': [-1, 0, 0, 0],
        'move_down': [0, 1, 0, 0],
        'move_up': [0, -1, 0, 0],
        'approach': [0, 0, 1, 0],
        'recede': [0, 0, -1, 0],
        'rotate_clockwise': [0, 0, 0, 1],
        'rotate_counterclockwise': [0, 0, 0, -1],
    }[motion]
    np.testing.assert_allclose(change, expected, atol=0.35)


def test_difficulty_adds_motion():
    def change(difficulty):
        what = SyntheticVideos(**{**vars(LARGE), 'difficulty': difficulty})
        video = render('move_left', 'bar', what, _rng())[0].astype(int)
        return (np.abs(np.diff(video, axis=0)).max(-1) > 2).mean()

    still, moving, *_ = changes = [change(difficulty) for difficulty in range(4)]
    assert still < 0.3 < 0.5 < moving
    assert len(set(changes)) == 4


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'height': 31}, '31 x 80 pixels: both must be even'),
        ({'width': 33}, '64 x 33 pixels: both must be even'),
        ({'difficulty': 4}, 'difficulty=4 must be 0, 1, 2 or 3'),
        ({'difficulty': -1}, 'difficulty=-1 must be'),
    ],
)
def test_impossible_request_raises(options, message):
    with pytest.raises(ValueError, match=message):
        SyntheticVideos(**options)
