import json
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboardX import record_writer

from vivit_jax.errors import UserError
from vivit_jax.train.tensorboard import TensorBoard
from vivit_jax.train.writers import MetricWriter, Progress

FULL_DISK = Path('/dev/full')


def read(folder):
    return [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]


def write_steps(folder, start, stop):
    writer = MetricWriter(folder, start)
    for step in range(start + 1, stop + 1):
        writer.write(step, {'train/loss': 1 / step})
    writer.close()


def test_metrics_of_a_step_share_a_line(tmp_path):
    writer = MetricWriter(tmp_path, 0)
    writer.write(1, {'train/loss': 2.0})
    writer.write(1, {'val/acc1': 0.5})
    writer.write(2, {'train/loss': 1.0})
    writer.close()
    assert read(tmp_path) == [
        {'step': 1, 'train/loss': 2.0, 'val/acc1': 0.5},
        {'step': 2, 'train/loss': 1.0},
    ]


@pytest.mark.parametrize('cut', ['', '{"step": 6, "train/lo'], ids=['whole', 'cut short'])
def test_restart_keeps_every_step_once(tmp_path, cut):
    write_steps(tmp_path, 0, 5)
    with (tmp_path / 'metrics.jsonl').open('a') as file:
        file.write(cut)
    write_steps(tmp_path, 3, 7)  # the newest checkpoint was of step 3
    assert [line['step'] for line in read(tmp_path)] == [1, 2, 3, 4, 5, 6, 7]


def test_tensorboard_gets_the_same_numbers(tmp_path):
    write_steps(tmp_path, 0, 3)
    events = EventAccumulator(str(tmp_path)).Reload().Scalars('train/loss')
    assert [event.step for event in events] == [1, 2, 3]
    assert [event.value for event in events] == pytest.approx([1, 1 / 2, 1 / 3])


def test_full_disk_ends_the_metrics_with_a_message(tmp_path):
    writer = MetricWriter(tmp_path, 0)
    with FULL_DISK.open('w') as writer._file:
        writer.write(1, {'train/loss': 2.0})
        with pytest.raises(UserError, match=r'metrics\.jsonl cannot be written \(No space left'):
            writer.flush()
        writer.write(2, {'train/loss': 2.0})
        writer.close()


def test_training_goes_on_without_tensorboard_if_its_disk_is_full(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(record_writer, 'open_file', lambda path: FULL_DISK.open('wb'))
    board = TensorBoard(tmp_path, 0)
    for step in range(1, 300):
        board.write(step, {'train/loss': 2.0, 'train/acc1': 0.5})
    board.close()
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith('TensorBoard gets no more metrics of this run: ')


def test_other_hosts_write_nothing(tmp_path):
    writer = MetricWriter(tmp_path, 0, active=False)
    writer.write(1, {'train/loss': 2.0})
    writer.close()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('heads', 'expected'),
    [
        ((), 'loss 1.500, acc 25 %'),
        (('verb', 'noun'), 'loss 1.500, action 25 %, verb 75 %, noun 50 %'),
    ],
    ids=['one head', 'two heads'],
)
def test_progress_shows_the_accuracy_of_every_head(caplog, heads, expected):
    metrics = {
        'train/loss': 1.5,
        'train/acc1': 0.25,
        'train/verb/acc1': 0.75,
        'train/noun/acc1': 0.5,
    }
    progress = Progress(0, 1, 4, heads)
    with caplog.at_level('INFO'):
        progress.update(1, metrics)
    progress.close()
    assert caplog.messages == [f'step 1/1: {expected}']


def test_pytorch_is_not_imported_and_stays_importable(tmp_path):
    pytest.importorskip('torch')
    code = (
        'import pathlib, sys; from vivit_jax.train.writers import MetricWriter; '
        'MetricWriter(pathlib.Path(sys.argv[1]), 0).close(); print("torch" in sys.modules); '
        'import torch'
    )
    command = [sys.executable, '-c', code, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == 'False\n'
