"""Trainings that end when validations no longer get better."""

import json
import math
import random

import pytest

from vivit_jax.config.presets import published_vivit, runlocal
from vivit_jax.errors import UserError
from vivit_jax.train.early_stop import EarlyStop
from vivit_jax.train.experiment import Experiment
from vivit_jax.train.loop import Trainer
from vivit_jax.train.stopping import Stop

ACCURACIES = (0.3, 0.5, 0.4, 0.5, 0.6, 0.7)  # the best of the first four is the second
LOSSES = (2.0, 3.0, 1.0, 1.5, math.nan, 1.25)


@pytest.fixture
def config(cache_dir):
    config = runlocal(published_vivit('vivit_fe', 'B/16x2', 'kinetics400', 30.0))
    config.data.update(num_workers=0, cache_dir=str(cache_dir))
    config.data.synthetic.update(num_train=16, num_val=8, num_test=4, num_frames=10)
    config.train.update(num_steps=6, batch_size=4, early_stop_validations=2)
    config.eval.update(every_steps=1, batch_size=4, views='1x1', test_at_end=False)
    return config


@pytest.fixture
def measured(monkeypatch):
    """Makes validations give `ACCURACIES` and `LOSSES`."""

    def validate(self, step, state):
        del state
        if self._stop.at_once:
            return None
        return {'val/acc1': ACCURACIES[step - 1], 'val/loss': LOSSES[step - 1]}

    monkeypatch.setattr(Trainer, '_validate', validate)


def stop_after(monkeypatch, step):
    monkeypatch.setattr(Stop, 'reached', lambda self, now: now == step)
    monkeypatch.setattr(Stop, 'exit_status', 130)


def stop_in_validation(monkeypatch, step):
    monkeypatch.setattr(Stop, 'at_once', property(lambda self: True))
    monkeypatch.setattr(Stop, 'exit_status', 130)


def steps_of(folder):
    return [json.loads(line)['step'] for line in (folder / 'metrics.jsonl').open()]


@pytest.mark.parametrize('patience', [0, 1, 2, 3])
@pytest.mark.parametrize('metric', ['acc1', 'loss'])
def test_end_is_where_the_last_values_beat_none_before(patience, metric):
    better = min if metric == 'loss' else max
    for seed in range(50):
        values = random.Random(seed).choices(range(5), k=10)
        early_stop = EarlyStop(patience, metric)
        for n, value in enumerate(values, start=1):
            early_stop.add(10 * n, {f'val/{metric}': value})
            last, before = values[max(0, n - patience) : n], values[: max(0, n - patience)]
            expected = bool(patience and before) and better(before + last) == better(before)
            # The first of equally good values counts.
            assert early_stop.is_reached == expected
        again = [{'step': 10 * n, f'val/{metric}': x} for n, x in enumerate(values, start=1)]
        assert str(EarlyStop(patience, metric, again)) == str(early_stop)


@pytest.mark.parametrize(('metric', 'end'), [('acc1', 4), ('loss', 5)])
def test_training_ends_is_tested_and_does_not_go_on(
    tmp_path, config, measured, caplog, metric, end
):
    config.train.early_stop_metric = metric
    config.eval.update(test_at_end=True, allow_untrained_head=True)
    trainer = Trainer(config, tmp_path / 'run')
    with caplog.at_level('INFO'):
        assert trainer.run() == 0
    assert steps_of(tmp_path / 'run') == list(range(1, end + 1))
    best, step = (0.5, 2) if metric == 'acc1' else (1, 3)
    assert (
        f'The training ended at step {end}: no better than val/{metric}={best} of step {step} in '
        '2 validation(s) since'
    ) in caplog.text
    assert trainer.results['val/acc1'] == ACCURACIES[end - 1]
    assert 0 <= trainer.results['test/acc1@1x1'] <= 1
    caplog.clear()
    config.eval.test_at_end = False
    with caplog.at_level('INFO'):
        assert Trainer(config, tmp_path / 'run').run() == 0
    assert steps_of(tmp_path / 'run') == list(range(1, end + 1))
    assert f'The training ended at step {end}' in caplog.text and 'Compiling' not in caplog.text
    if metric == 'acc1':  # more patience lets it go on
        config.train.early_stop_validations = 3
        assert Trainer(config, tmp_path / 'run').run() == 0
        assert steps_of(tmp_path / 'run') == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ('stop', 'step'), [(stop_after, 2), (stop_after, 3), (stop_after, 4), (stop_in_validation, 1)]
)
def test_resumed_training_ends_where_an_undisturbed_one_does(
    tmp_path, config, measured, monkeypatch, stop, step
):
    with monkeypatch.context() as patch:
        stop(patch, step)
        assert Trainer(config, tmp_path).run() == 130
    assert steps_of(tmp_path) == list(range(1, step + 1))
    assert Trainer(config, tmp_path).run() == 0
    assert steps_of(tmp_path) == [1, 2, 3, 4]


def test_early_stops_that_can_never_be_are_errors(config, synthetic_folder):
    config.train.early_stop_metric = 'acc5'
    with pytest.raises(UserError, match=r"early_stop_metric='acc5' must be 'acc1' or 'loss'"):
        Experiment(config)
    config.train.early_stop_metric = 'loss'
    config.eval.every_steps = None
    with pytest.raises(UserError, match=r'needs validations during the training: set eval\.every'):
        Experiment(config)
    config.data.update(source='csv', train_csv=str(synthetic_folder / 'train.csv'))
    with pytest.raises(UserError, match='early_stop_validations=2 needs a validation split'):
        Experiment(config)
