"""Metrics of a training: metrics.jsonl, TensorBoard, Weights & Biases and the terminal."""

import contextlib
import json
import logging
import math
import os
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from vivit_jax.atomic_files import replace_text
from vivit_jax.errors import UserError, writing
from vivit_jax.train.tensorboard import TensorBoard
from vivit_jax.train.weights_and_biases import WeightsAndBiases

_log = logging.getLogger(__name__)


class MetricWriter:
    """Writes one line per step to metrics.jsonl, and the same numbers to boards.

    There is always a board of TensorBoard.

    The metrics of the newest step are held back until a later step or `flush`, so that all metrics
    of a step share a line.

    Args:
        folder: the run folder.
        step: lines of later steps, left by an interrupted run, are removed.
        active: False on all hosts but the first, where nothing is written.
        wandb_project: of Weights & Biases; '': none.
        config: of the run, for Weights & Biases.

    Raises:
        UserError: metrics.jsonl cannot be written, or wandb is not installed.
    """

    def __init__(
        self,
        folder: Path,
        step: int,
        active: bool = True,
        *,
        wandb_project: str = '',
        config: Mapping[str, object] | None = None,
    ):
        self._path, self._active = folder / 'metrics.jsonl', active
        self._step, self._metrics = step, {}
        if not active:
            return
        with writing(self._path):
            if self._path.exists():
                kept = read_metrics(folder, step)
                replace_text(self._path, ''.join(json.dumps(line) + '\n' for line in kept))
            self._file = self._path.open('a', encoding='utf-8')
        self._boards = [TensorBoard(folder, step)]
        if wandb_project:
            self._boards.append(WeightsAndBiases(folder, wandb_project, config or {}))

    def amend(self, step: int, metrics: Mapping[str, float]):
        """Adds metrics to the last step of the run so far, before any other is written.

        Raises:
            UserError: metrics.jsonl cannot be written.
        """
        if not self._active:
            return
        self._write_to_boards(step, metrics)
        with writing(self._path):
            lines = self._path.read_text(encoding='utf-8').splitlines(keepends=True)
            if lines and json.loads(lines[-1])['step'] == step:
                metrics = json.loads(lines.pop()) | metrics
            self._file.close()
            lines.append(json.dumps({'step': step, **metrics}) + '\n')
            replace_text(self._path, ''.join(lines))
            self._file = self._path.open('a', encoding='utf-8')

    def write(self, step: int, metrics: Mapping[str, float]):
        """Adds metrics of a step; steps never go back."""
        if step != self._step:
            self.flush()
        self._step = step
        self._metrics.update(metrics)

    def flush(self, lasts: bool = False):
        """Writes the metrics that are held back.

        Args:
            lasts: whether all metrics outlast a power cut from now on, which takes time.

        Raises:
            UserError: the disk refuses; nothing more is written.
        """
        metrics, self._metrics = self._metrics, {}
        if not self._active or not (metrics or lasts):
            return
        if metrics:
            self._write_to_boards(self._step, metrics)
        try:
            with writing(self._path):
                if metrics:
                    self._file.write(json.dumps({'step': self._step, **metrics}) + '\n')
                    self._file.flush()
                if lasts:
                    os.fsync(self._file.fileno())
        except UserError:
            self._active = False
            with contextlib.suppress(OSError):
                self._file.close()
            self._close_boards()
            raise

    def close(self):
        """Flushes and closes the files.

        Raises:
            UserError: the disk refuses.
        """
        self.flush()
        if self._active:
            self._file.close()
            self._close_boards()

    def _write_to_boards(self, step: int, metrics: Mapping[str, float]):
        for board in self._boards:
            board.write(step, metrics)

    def _close_boards(self):
        for board in self._boards:
            board.close()


class Progress:
    """A bar with loss, accuracy, speed and time left; off a terminal, a line now and then.

    Args:
        step: where the run starts.
        num_steps: where it ends.
        batch_size: clips per step.
        heads: names of several heads; their accuracies are shown beside the accuracy of the action.
        active: False on all hosts but the first.
    """

    _LOG_EVERY_SEC = 20.0

    def __init__(
        self,
        step: int,
        num_steps: int,
        batch_size: int,
        heads: Sequence[str] = (),
        active: bool = True,
    ):
        self._bar = tqdm(
            total=num_steps,
            initial=step,
            disable=not active or None,  # None: off a terminal
            bar_format='{percentage:3.0f}%|{bar}| {n}/{total}{postfix}',
        )
        self._logs = active and self._bar.disable
        self._num_steps = num_steps
        self._batch_size = batch_size
        self._heads = heads
        self._step = step
        self._logged = time.monotonic()
        self._since = None  # when and at which step the clock was started

    def update(self, step: int, metrics: Mapping[str, float]):
        """Shows the metrics of a step."""
        self._step, now = step, time.monotonic()
        name = 'action' if self._heads else 'acc'
        text = f'loss {metrics["train/loss"]:.3f}'
        if 'train/acc1' in metrics:
            text += f', {name} {100 * metrics["train/acc1"]:.0f} %'
        for head in self._heads:
            text += f', {head} {100 * metrics[f"train/{head}/acc1"]:.0f} %'
        if self._since is None:  # the first step after a start or a pause only starts the clock
            self._since = now, step
        elif step > self._since[1]:
            rate = (step - self._since[1]) / (now - self._since[0])
            left = tqdm.format_interval((self._num_steps - step) / rate)
            text += f', {rate * self._batch_size:.0f} clips/s, {left} left'
        if not self._bar.disable:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(step - self._bar.n)
        elif self._logs and (now - self._logged > self._LOG_EVERY_SEC or step == self._num_steps):
            _log.info('step %d/%d: %s', step, self._num_steps, text)
            self._logged = now

    def pause(self):
        """Leaves out of the speed what comes before the next step, such as an evaluation."""
        self._since = None

    def close(self):
        """Ends the bar."""
        self._bar.close()


def host_rss_gb() -> float:
    """Largest resident memory of this process so far, in GiB."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / 2**30 if sys.platform == 'darwin' else size / 2**20


def read_metrics(folder: Path, last_step: float = math.inf) -> list[dict[str, float]]:
    """The lines of metrics.jsonl of a run folder, without any that a kill cut short.

    Args:
        folder: the run folder.
        last_step: later steps are left out.
    """
    path, found = folder / 'metrics.jsonl', []
    for line in path.read_text('utf-8').splitlines() if path.exists() else []:
        try:
            metrics = json.loads(line)
            if metrics['step'] <= last_step:
                found.append(metrics)
        except (json.JSONDecodeError, KeyError):
            continue
    return found
