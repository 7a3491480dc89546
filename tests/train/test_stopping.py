"""Runs that are stopped and go on give what a run gives that nobody stopped."""

import json

import pytest

from vivit_jax.config.presets import published_vivit, runlocal
from vivit_jax.train.loop import Trainer
from vivit_jax.train.stopping import Stop


@pytest.fixture
def config(cache_dir):
    config = runlocal(published_vivit('vivit_fe', 'B/16x2', 'kinetics400', 30.0))
    config.data.update(num_workers=0, cache_dir=str(cache_dir))
    config.data.synthetic.update(num_train=16, num_val=8, num_test=4, num_frames=10)
    config.train.update(num_steps=6, batch_size=4, checkpoint_every_steps=2)
    config.eval.update(every_steps=2, batch_size=4, test_at_end=False)
    return config


def stop_at(monkeypatch, step):
    monkeypatch.setattr(Stop, 'reached', lambda self, now: now == step)
    monkeypatch.setattr(Stop, 'exit_status', 130)


def stop_in_validation(monkeypatch, step):
    del step
    monkeypatch.setattr(Stop, 'at_once', True)
    monkeypatch.setattr(Stop, 'exit_status', 130)


def results(folder):
    """The metrics of every step without its speed, and the step of the best checkpoint."""
    lines = map(json.loads, (folder / 'metrics.jsonl').read_text().splitlines())
    kept = [{k: x for k, x in line.items() if not k.startswith('perf/')} for line in lines]
    return kept, (folder / 'best').resolve().name


@pytest.mark.parametrize('stop', [stop_at, stop_in_validation])
def test_a_validation_that_was_left_out_is_made_up(tmp_path, config, monkeypatch, stop):
    assert Trainer(config, tmp_path / 'whole').run() == 0
    for step in (2, 6):
        with monkeypatch.context() as patch:
            stop(patch, step)
            assert Trainer(config, tmp_path / 'stopped').run() == 130
    assert Trainer(config, tmp_path / 'stopped').run() == 0
    assert results(tmp_path / 'stopped') == results(tmp_path / 'whole')
    assert all('val/acc1' in line for line in results(tmp_path / 'stopped')[0][1::2])
