"""Trainings that get signals again and again, against the same training that nobody disturbed."""

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from endurance_parts.trainings import MOMENTS, Training, compare, train_undisturbed

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
    'SIGKILL of a worker': set(),
    'SIGSTOP of a worker': set(),
}
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
    whole, disturbed = train_undisturbed(folder), folder / 'disturbed'
    clock = folder / 'clock'
    clock.mkdir(exist_ok=True)
    (clock / 'sitecustomize.py').write_text(_JUMPING_CLOCK)
    paths = os.pathsep.join(filter(None, [str(clock), os.environ.get('PYTHONPATH')]))
    left = count
    while left:
        first = seed + count - left
        jumps = first % 4 == 3
        shutil.rmtree(disturbed, ignore_errors=True)
        is_done = False
        while not is_done:
            rng = random.Random(seed + count - left)
            fault, moment = rng.choice([*_FAULTS]), rng.choice([*MOMENTS])
            if not left:
                fault = None  # the last training ends in peace
            began = time.monotonic()
            training = Training(disturbed, folder, {'PYTHONPATH': paths} if jumps else {})
            is_done, outcome = _disturb(training, fault, moment, rng)
            if is_done and outcome == 'ok':
                outcome = compare(whole, disturbed)
            if fault:
                left -= 1
                words = f'{fault}, {moment}' + (', clock jumps' if jumps else '')
                yield words, outcome, time.monotonic() - began
            elif outcome != 'ok':
                yield 'no more faults', outcome, time.monotonic() - began


def _disturb(
    training: Training, fault: str | None, moment: str, rng: random.Random
) -> tuple[bool, str]:
    """Waits for a fault and its consequences; says whether to end, and what was wrong."""
    if fault:
        training.wait_for(moment, rng.uniform(0.1, 1))
        _send(training.process, fault, rng)
    if (outcome := training.wait()) != 'ok':
        return True, outcome
    status = training.process.returncode
    if status not in {0, *(_STATUS[fault] if fault else ())}:
        return True, f'status {status}: {"".join(training.lines[-3:])}'
    return status == 0, 'ok'


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
