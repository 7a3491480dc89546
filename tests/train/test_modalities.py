"""Whole runs with depth and with units: train, evaluate, predict."""

import csv
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from vivit_jax.config.presets import runlocal
from vivit_jax.errors import UserError
from vivit_jax.evaluation.evaluate_checkpoint import evaluate_checkpoint
from vivit_jax.predictor import Predictor
from vivit_jax.train.experiment import Experiment
from vivit_jax.train.loop import Trainer
from vivit_jax.video.frame_reader import VideoError
from vivit_jax.video.open import open_video

CONFIGS = Path(__file__).parents[2] / 'configs'


def create_config(cache_dir, model, **model_keywords):
    module = importlib.util.spec_from_file_location('custom', CONFIGS / 'custom.py')
    custom = importlib.util.module_from_spec(module)
    module.loader.exec_module(custom)
    config = runlocal(custom.get_config(model))
    config.model.update(model_keywords)
    config.data.update(num_workers=0, cache_dir=str(cache_dir))
    config.data.synthetic.update(num_train=16, num_val=8, num_test=8, num_frames=10)
    config.data.synthetic.update(height=32, width=40)
    config.preprocessing.update(short_side=24, crop_size=16)
    config.train.update(num_steps=2, batch_size=4, checkpoint_every_steps=None)
    config.eval.update(every_steps=2, batch_size=4, views='2x3', test_at_end=False)
    return config


def train(config, folder):
    Trainer(config, folder).run()
    return folder


def embedded(cache_dir, split='test'):
    [folder] = cache_dir.glob('synthetic*_10_32_40_0_depth')
    with (folder / f'{split}.csv').open(newline='') as file:
        return [(folder / x['video_path'], folder / x['depth_path']) for x in csv.DictReader(file)]


@pytest.fixture(scope='module')
def rgbd(tmp_path_factory):
    folder = tmp_path_factory.mktemp('rgbd')
    config = create_config(folder, 'vivit_fe', modality='rgbd')
    return config, train(config, folder / 'run'), folder


def test_rgb_and_depth_are_trained_evaluated_and_predicted(rgbd):
    config, run, cache_dir = rgbd
    split, metrics = evaluate_checkpoint(config, run, run / 'last')
    assert split == 'test' and 0 <= metrics['acc1'] <= 1
    predictor = Predictor(run)
    rgb, depth = map(list, zip(*embedded(cache_dir), strict=True))
    [first] = predictor([{'rgb': rgb[0], 'depth': depth[0]}])
    [other] = predictor([{'rgb': rgb[0], 'depth': depth[1]}])
    assert np.abs(first.probabilities - other.probabilities).max() > 1e-6
    with open_video(rgb[0]) as video, open_video(depth[0]) as depth_video:
        arrays = {
            'rgb': video.read(range(len(video))),
            'depth': depth_video.read(range(len(video)), kind='depth')[..., 0],
        }
    again = predictor(arrays, fps=12)
    np.testing.assert_allclose(again.probabilities, first.probabilities, atol=5e-3)


def test_depth_must_be_given_and_fit(rgbd):
    _, run, cache_dir = rgbd
    (rgb, depth), *_ = embedded(cache_dir)
    predictor = Predictor(run)
    with pytest.raises(UserError, match='takes RGB and depth'):
        predictor(rgb)
    with pytest.raises(UserError, match="must have 'rgb' and 'depth'"):
        predictor({'rgb': rgb})
    with pytest.raises(VideoError, match='no such file'):
        predictor({'rgb': rgb, 'depth': depth.with_name('other.mkv')})
    frames = np.zeros((9, 32, 40), np.uint16)
    with pytest.raises(VideoError, match='has 9 frames, but'):
        predictor({'rgb': rgb, 'depth': frames}, fps=12)
    with pytest.raises(UserError, match="modality 'rgbd'"):
        predictor.stream([], window_sec=1.0, fps=12)


def test_depth_model_takes_depth_videos(tmp_path):
    config = create_config(tmp_path, 'vivit_fsa', modality='depth', depth_channels=1)
    run = train(config, tmp_path / 'run')
    (rgb, depth), *_ = embedded(tmp_path)
    predictor = Predictor(run)
    assert predictor(depth).probabilities.shape == (8,)
    with pytest.raises(VideoError, match='it has colours'):
        predictor(rgb)


def test_missing_depth_range_is_an_error_before_training(tmp_path):
    config = create_config(tmp_path, 'vivit_fe', modality='depth')
    config.preprocessing.depth_range = ()
    with pytest.raises(UserError, match=r'depth_range is not set.*depth_range=4000,'):
        Experiment(config)


def test_units_are_sampled_and_may_be_more_in_the_test(tmp_path):
    config = create_config(tmp_path, 'f4d')
    config.preprocessing.update(sampling='units', num_units=2, num_frames=2, frame_stride=1)
    config.eval.num_units = 3
    run = train(config, tmp_path / 'run')
    _, metrics = evaluate_checkpoint(config, run, run / 'last')
    assert 0 <= metrics['acc1'] <= 1
    [folder] = tmp_path.glob('synthetic*')
    video = folder / 'test/00000.mp4'
    two, three = (Predictor(run, num_units=units)(video) for units in (None, 3))
    assert np.abs(two.features - three.features).max() > 1e-4
    config = create_config(tmp_path, 'vivit_fe')
    with pytest.raises(UserError, match=r"num_units=3 needs preprocessing\.sampling='units'"):
        config.eval.num_units = 3
        evaluate_checkpoint(config, run, train(config, tmp_path / 'other') / 'checkpoints')
