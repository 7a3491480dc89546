"""Trainings that are killed again and again, against the same training that nobody disturbed."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
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
# What the log says before the fault, which comes up to so many seconds later.
_MOMENTS = {
    'start-up': ('', 6.0),
    'compilation': ('Compiling the training step', 2.0),
    'training': ('First step after', 3.0),
    'validation and saving': ('step \\d+: val', 0.5),
    'final test': ('Loaded step', 2.0),
}
# Signals for the trainer or for one of its workers.
_FAULTS = {
    'SIGKILL': ('trainer', [signal.SIGKILL]),
    'SIGTERM': ('trainer', [signal.SIGTERM]),
    'SIGINT': ('trainer', [signal.SIGINT]),
    'SIGINT twice': ('trainer', [signal.SIGINT, signal.SIGINT]),
    'SIGKILL of a worker': ('worker', [signal.SIGKILL]),
    'SIGSTOP of a worker': ('worker', [signal.SIGSTOP]),
}
_STATUS = {  # of the trainer, 0 if it had ended before
    'SIGKILL': {-signal.SIGKILL},
    'SIGTERM': {-signal.SIGTERM, 128 + signal.SIGTERM},
    'SIGINT': {128 + signal.SIGINT, -signal.SIGINT},
    'SIGINT twice': {128 + signal.SIGINT, -signal.SIGINT},
    'SIGKILL of a worker': {0},
    'SIGSTOP of a worker': {0},
}
_LIMIT_SEC = 300
# Every fourth training has a clock that jumps by up to a day, forwards and backwards.
_JUMPING_CLOCK = """
import random, time
_time, _offset = time.time, [0.0, 0.0]
def jumping():
    now = time.monotonic()
    if now > _offset[1]:
        _offset[:] = random.uniform(-86400, 86400), now + 3
    return _time() + _offset[0]
time.time = jumping
"""


def run(folder: Path, count: int, seed: int) -> Iterator[tuple[str, str, float]]:
    """Yields (fault, outcome, seconds) of `count` faults, from case `seed` on."""
    if count <= 0:
        return
    whole = folder / 'whole'
    if not (whole / 'last').exists():
        shutil.rmtree(whole, ignore_errors=True)
        subprocess.run(_command(whole, folder), check=True, stderr=subprocess.DEVNULL)
    clock = folder / 'clock'
    clock.mkdir(exist_ok=True)
    (clock / 'sitecustomize.py').write_text(_JUMPING_CLOCK)
    left = count
    while left:
        training, disturbed = seed + count - left, folder / 'disturbed'
        shutil.rmtree(disturbed, ignore_errors=True)
        is_done = False
        while not is_done:
            case = seed + count - left
            rng = random.Random(case)
            fault, moment = rng.choice([*_FAULTS]), rng.choice([*_MOMENTS])
            if not left:
                fault = None  # the last training ends in peace
            jumps = training % 4 == 3
            began = time.monotonic()
            is_done, outcome = _disturb(disturbed, folder, fault, moment, rng, jumps and clock)
            if is_done:
                outcome = _compare(whole, disturbed) if outcome == 'ok' else outcome
            if fault:
                left -= 1
                words = f'{fault}, {moment}' + (', clock jumps' if jumps else '')
                yield words, outcome, time.monotonic() - began
            elif outcome != 'ok':
                yield 'no more faults', outcome, time.monotonic() - began


def _command(workdir: Path, folder: Path) -> list[str]:
    cache = f'--config.data.cache_dir={folder}'
    return [sys.executable, '-m', 'vivit_jax.main', f'--workdir={workdir}', *_CONFIG, cache]


def _disturb(
    workdir: Path,
    folder: Path,
    fault: str | None,
    moment: str,
    rng: random.Random,
    clock: Path | None,
) -> tuple[bool, str]:
    """Runs until a fault, or to the end; says whether the training is done, and what was wrong."""
    environment = dict(os.environ)
    if clock:
        environment['PYTHONPATH'] = os.pathsep.join(
            filter(None, [str(clock), environment.get('PYTHONPATH')])
        )
    process = subprocess.Popen(
        _command(workdir, folder), stderr=subprocess.PIPE, text=True, env=environment
    )
    lines, come = [], threading.Event()
    sign, delay = _MOMENTS[moment]

    def read():
        for line in process.stderr:
            lines.append(line)
            if sign and re.search(sign, line):
                come.set()
        come.set()  # the process has ended

    reader = threading.Thread(target=read)
    reader.start()
    if fault:
        if sign:
            come.wait(_LIMIT_SEC)
        time.sleep(rng.uniform(0.3, delay))
        _send(process, fault, rng)
    try:
        process.wait(_LIMIT_SEC)
    except subprocess.TimeoutExpired:
        process.kill()
        return True, f'hangs: {lines[-1:]}'
    reader.join(10)
    if reader.is_alive():
        return True, 'leaves processes that hold its output'
    is_done = process.returncode == 0
    if process.returncode not in {0, *(_STATUS[fault] if fault else ())}:
        return True, f'status {process.returncode}: {"".join(lines[-3:])}'
    if any('Traceback' in line or 'leaked' in line for line in lines):
        return True, f'not in one line: {"".join(lines)}'
    return is_done, 'ok'


def _send(process: subprocess.Popen, fault: str, rng: random.Random):
    target, signals = _FAULTS[fault]
    pid = process.pid
    if target == 'worker':
        # Of the processes that multiprocessing starts, one only keeps lists of shared memory.
        workers = [child for child in _children(pid) if b'spawn_main' in _command_line(child)]
        if not workers:
            return
        pid = rng.choice(workers)
    for number in signals:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        time.sleep(rng.uniform(0.05, 0.3))


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f'/proc/{pid}/task').glob('*/children'):
        try:
            found += map(int, task.read_text().split())
        except OSError:
            continue
    return sorted(found)


def _command_line(pid: int) -> bytes:
    try:
        return Path(f'/proc/{pid}/cmdline').read_bytes()
    except OSError:
        return b''


def _compare(whole: Path, disturbed: Path) -> str:
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
