import csv
import json

import pytest

from vivit_jax.annotations.dataset import Dataset, LabeledVideo
from vivit_jax.batches.sources import VideoFiles
from vivit_jax.config.schema import default_config
from vivit_jax.errors import UserError
from vivit_jax.train.run_folder import BadVideos, start_run

CLASSES = Dataset({}, ('jump', 'run'))


def test_start_writes_what_the_run_was_started_with(tmp_path):
    config = default_config()
    config.train.learning_rate = 0.25
    start_run(tmp_path, config, CLASSES)
    assert json.loads((tmp_path / 'config.json').read_text())['train.learning_rate'] == 0.25
    assert (tmp_path / 'label_map.txt').read_text() == 'jump\nrun\n'
    assert json.loads((tmp_path / 'versions.json').read_text()).keys() >= {'jax', 'python'}
    assert len((tmp_path / 'command.txt').read_text().splitlines()) == 1


def test_going_on_says_which_keys_differ(tmp_path, caplog):
    config = default_config()
    start_run(tmp_path, config, CLASSES)
    config.data.num_workers = 7
    with caplog.at_level('INFO'):
        start_run(tmp_path, config, CLASSES)
    assert 'data.num_workers: 2 -> 7' in caplog.text


def test_longer_run_says_so_and_shorter_run_is_refused(tmp_path, caplog):
    config = default_config()
    for num_epochs in (2.0, 3.0):
        config.train.num_epochs = num_epochs
        with caplog.at_level('INFO'):
            start_run(tmp_path, config, CLASSES)
    assert 'The run becomes longer' in caplog.text
    config.train.num_epochs = 2.5
    with pytest.raises(UserError, match=r'train\.num_epochs: 3\.0 -> 2\.5'):
        start_run(tmp_path, config, CLASSES)


def test_another_config_is_refused_with_every_key(tmp_path):
    config = default_config()
    start_run(tmp_path, config, CLASSES)
    config.train.learning_rate = 0.5
    config.seed = 3
    with pytest.raises(UserError, match=r'seed: 0 -> 3\n.*train.learning_rate: 0.1 -> 0.5'):
        start_run(tmp_path, config, CLASSES)


def test_a_config_that_a_power_cut_left_empty_is_named(tmp_path):
    start_run(tmp_path, default_config(), CLASSES)
    (tmp_path / 'config.json').write_text('')
    with pytest.raises(UserError, match=r'config\.json is damaged .*restore it, or remove it'):
        start_run(tmp_path, default_config(), CLASSES)


def test_other_classes_are_refused(tmp_path):
    start_run(tmp_path, default_config(), CLASSES)
    with pytest.raises(UserError, match='classes'):
        start_run(tmp_path, default_config(), Dataset({}, ('run', 'jump')))


def test_every_head_has_a_label_map(tmp_path):
    heads = {'verb': ('cut', 'fry'), 'noun': ('egg',)}
    start_run(tmp_path, default_config(), Dataset({}, heads))
    assert (tmp_path / 'label_map_verb.txt').read_text() == 'cut\nfry\n'
    assert (tmp_path / 'label_map_noun.txt').read_text() == 'egg\n'
    assert not (tmp_path / 'label_map.txt').exists()
    start_run(tmp_path, default_config(), Dataset({}, heads))
    with pytest.raises(UserError, match=r'are not those of .*label_map_noun\.txt'):
        start_run(tmp_path, default_config(), Dataset({}, {**heads, 'noun': ('onion',)}))


def _drawn(**splits):
    videos = {
        split: VideoFiles([LabeledVideo(f'/data/{name}', int('run' in name)) for name in names])
        for split, names in splits.items()
    }
    return Dataset(videos, ('jump', 'run'), val_is_drawn=True)


def test_a_drawn_split_is_saved_and_must_come_out_again(tmp_path):
    train, val = ['jump/1.mp4', 'run/1.mp4'], ['jump/2.mp4', 'run/2.mp4']
    start_run(tmp_path, default_config(), _drawn(train=train, val=val))
    with (tmp_path / 'val_videos.csv').open(newline='') as file:
        assert list(csv.DictReader(file)) == [
            {'video_path': '/data/jump/2.mp4', 'label': 'jump'},
            {'video_path': '/data/run/2.mp4', 'label': 'run'},
        ]
    start_run(tmp_path, default_config(), _drawn(train=train, val=val))
    with pytest.raises(UserError, match=r'the 2 videos of .*train_videos\.csv no longer come out'):
        start_run(tmp_path, default_config(), _drawn(train=[*train, 'run/3.mp4'], val=val))


def test_only_a_drawn_split_is_saved(tmp_path):
    start_run(tmp_path, default_config(), CLASSES)
    assert not list(tmp_path.glob('*_videos.csv'))


def test_bad_videos_are_listed_once_in_any_number_of_restarts(tmp_path):
    for _ in range(2):
        bad = BadVideos(tmp_path, num_videos=10, max_fraction=0.5)
        bad.add('a.mp4', 'a.mp4: damaged')
        bad.add('b.mp4', 'b.mp4: empty')
        bad.add('a.mp4', 'a.mp4: damaged')
        assert len(bad) == 2
    with (tmp_path / 'bad_videos.csv').open(newline='') as file:
        assert [row['video'] for row in csv.DictReader(file)] == ['a.mp4', 'b.mp4']


def test_a_few_bad_videos_never_stop_a_run_unless_none_may_be(tmp_path):
    bad = BadVideos(tmp_path, num_videos=60, max_fraction=0.01)
    for name in 'abcde':
        bad.add(name, 'damaged')
    with pytest.raises(UserError, match='6 of 60 training videos'):
        bad.add('f', 'damaged')
    with pytest.raises(UserError, match='1 of 60 training videos'):
        BadVideos(tmp_path, 60, max_fraction=0, host=1).add('a', 'damaged')


def test_too_many_bad_videos_stop_the_run(tmp_path):
    bad = BadVideos(tmp_path, num_videos=4, max_fraction=0.25)
    bad.add('a.mp4', 'damaged')
    with pytest.raises(UserError, match=r'2 of 4 training videos .*data.max_bad_fraction=0.25'):
        bad.add('b.mp4', 'damaged')
