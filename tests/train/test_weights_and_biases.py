"""Metrics for Weights & Biases, with a module that stands in for it."""

import json
import sys
import threading
import types

import pytest

from vivit_jax import processes
from vivit_jax.errors import UserError
from vivit_jax.train import weights_and_biases
from vivit_jax.train.writers import MetricWriter


class StandIn:
    """What a board of W&B would show, by the id of the run."""

    def __init__(self, fails_in=''):
        self.rows, self.settings, self.fails_in = {}, [], fails_in
        self.module = types.ModuleType('wandb')
        self.module.init = self.init

    def init(self, **settings):
        self.settings.append(settings)
        self._fail('init')
        rows = self.rows.setdefault(settings['id'], {})

        def log(metrics):
            self._fail('log')
            rows.setdefault(metrics['step'], {}).update(metrics)

        return types.SimpleNamespace(
            log=log, define_metric=lambda *_, **__: None, finish=lambda: self._fail('finish')
        )

    def _fail(self, name):
        if self.fails_in == name:
            raise ConnectionError('no network')


@pytest.fixture
def wandb(monkeypatch):
    def stand_in(fails_in=''):
        found = StandIn(fails_in)
        monkeypatch.setitem(sys.modules, 'wandb', found.module)
        return found

    return stand_in


def write(folder, first, last):
    writer = MetricWriter(folder, first, wandb_project='motions', config={'train.batch_size': 4})
    for step in range(first + 1, last + 1):
        writer.write(step, {'train/loss': 1 / step})
        if step % 2 == 0:
            writer.write(step, {'val/acc1': step / 10})
    writer.close()


def test_board_has_the_same_numbers_also_after_a_resume(tmp_path, wandb):
    board = wandb()
    write(tmp_path, 0, 5)
    write(tmp_path, 3, 6)  # the newest checkpoint was of step 3
    lines = [json.loads(line) for line in (tmp_path / 'metrics.jsonl').open()]
    assert [line['step'] for line in lines] == [1, 2, 3, 4, 5, 6]
    (rows,) = board.rows.values()
    assert list(rows.values()) == lines
    first, second = board.settings
    assert first == second
    assert (first['project'], first['name'], first['resume']) == ('motions', tmp_path.name, 'allow')
    assert first['config'] == {'train.batch_size': 4}
    other = tmp_path / 'other'
    other.mkdir()
    write(other, 0, 1)
    assert len(board.rows) == 2


def test_made_up_validation_is_sent(tmp_path, wandb):
    board = wandb()
    write(tmp_path, 0, 3)
    writer = MetricWriter(tmp_path, 3, wandb_project='motions')
    writer.amend(3, {'val/acc1': 0.5})
    writer.close()
    (rows,) = board.rows.values()
    assert rows[3] == {'step': 3, 'train/loss': 1 / 3, 'val/acc1': 0.5}


@pytest.mark.parametrize('fails_in', ['init', 'log', 'finish'])
def test_training_goes_on_without_a_board_that_fails(tmp_path, wandb, caplog, fails_in):
    wandb(fails_in)
    write(tmp_path, 0, 5)
    assert len((tmp_path / 'metrics.jsonl').read_text().splitlines()) == 5
    (message,) = caplog.messages
    assert message == 'Weights & Biases gets no more metrics of this run: no network'


def test_training_ends_although_the_board_does_not(tmp_path, wandb, caplog, monkeypatch):
    board, ended = wandb(), threading.Event()
    board._fail = lambda name: ended.wait() if name == 'finish' else None
    monkeypatch.setattr(weights_and_biases, '_FINISH_SEC', 0.05)
    monkeypatch.setattr(processes, 'has_left_threads', False)
    write(tmp_path, 0, 1)
    assert caplog.messages[0].startswith('Weights & Biases did not get everything')
    assert processes.has_left_threads
    ended.set()


@pytest.mark.parametrize('module', [None, types.ModuleType('wandb')], ids=['none', 'a folder'])
def test_missing_package_is_named(tmp_path, monkeypatch, module):
    monkeypatch.setitem(sys.modules, 'wandb', module)
    with pytest.raises(UserError, match=r'train\.wandb_project needs .*: pip install wandb'):
        write(tmp_path, 0, 1)


def test_nothing_is_imported_unless_asked_for(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'wandb', None)
    writer = MetricWriter(tmp_path, 0)
    writer.write(1, {'train/loss': 1.0})
    writer.close()
