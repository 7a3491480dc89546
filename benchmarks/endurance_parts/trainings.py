"""A short training as a process of its own, and the comparison of two run folders."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from vivit_jax.weights.load import load_checkpoint

_CONFIG = [
    '--config=configs/kinetics400_fe.py:runlocal',
    '--config.data.synthetic.num_train=24',
    '--config.data.synthetic.num_val=8',
    '--config.data.synthetic.num_test=8',
    '--config.data.synthetic.num_frames=10',
    '--config.data.stall_sec=3',
    '--config.train.num_steps=60',
    '--config.train.warmup_steps=2',
    '--config.train.checkpoint_every_steps=7',
    '--config.eval.every_steps=10',
]
# What the log says before a moment, which comes up to so many seconds later.
MOMENTS = {
    'start-up': ('', 6.0),
    'compilation': ('Compiling the training step', 2.0),
    'training': ('First step after', 3.0),
    'validation and saving': ('step \\d+: val', 0.5),
    'final test': ('Loaded step', 2.0),
}
_LIMIT_SEC = 300


class Training:
    """A training that runs until `wait` returns.

    Args:
        workdir: its run folder.
        cache: a folder for videos, which trainings share.
        environment: further variables; the training also gets the variables of this process.
    """

    def __init__(self, workdir: Path, cache: Path, environment: Mapping[str, str] = {}):
        flags = [f'--workdir={workdir}', *_CONFIG, f'--config.data.cache_dir={cache}']
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'vivit_jax.main', *flags],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self.lines = []
        self._printed = threading.Condition()
        self._has_ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stderr:
            with self._printed:
                self.lines.append(line)
                self._printed.notify_all()
        with self._printed:
            self._has_ended = True
            self._printed.notify_all()

    def wait_for(self, moment: str, part: float):
        """Returns at a moment of `MOMENTS`, or when the training has ended.

        Args:
            moment: its name.
            part: how much of the seconds after the sign to wait, 0 to 1.
        """
        sign, seconds = MOMENTS[moment]
        if sign:
            with self._printed:
                self._printed.wait_for(
                    lambda: self._has_ended or any(re.search(sign, line) for line in self.lines),
                    _LIMIT_SEC,
                )
        time.sleep(part * seconds)

    def wait(self) -> str:
        """Waits for the end; returns what was wrong with it, or `'ok'`."""
        try:
            self.process.wait(_LIMIT_SEC)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return f'hangs: {self.lines[-1:]}'
        self._reader.join(10)
        if self._reader.is_alive():
            return 'leaves processes that hold its output'
        if any('Traceback' in line or 'leaked' in line for line in self.lines):
            return f'not in one line: {"".join(self.lines)}'
        return 'ok'


def train_undisturbed(folder: Path) -> Path:
    """The run folder of a training in peace, trained if it is not there yet."""
    whole = folder / 'whole'
    if not (whole / 'last').exists():
        shutil.rmtree(whole, ignore_errors=True)
        training = Training(whole, folder)
        if training.wait() != 'ok' or training.process.returncode:
            raise RuntimeError(''.join(training.lines))
    return whole


def compare(whole: Path, disturbed: Path) -> str:
    """What differs between two run folders: metrics, weights or the best step; or `'ok'`."""
    if _metrics(whole) != _metrics(disturbed):
        return 'other metrics'
    for name in ('last', 'best'):
        left, right = ((folder / name).resolve() for folder in (whole, disturbed))
        if left.name != right.name:
            return f'{name} is step {right.name} instead of {left.name}'
        left, right = (load_checkpoint(folder / name)[1] for folder in (whole, disturbed))
        if not all(jax.tree.leaves(jax.tree.map(np.array_equal, left, right))):
            return f'other weights in {name}'
    return 'ok'


def _metrics(folder: Path) -> list[dict]:
    lines = map(json.loads, (folder / 'metrics.jsonl').read_text().splitlines())
    return [{k: x for k, x in line.items() if not k.startswith('perf/')} for line in lines]
