"""Worker processes of separate scripts, started as the trainer starts them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SOURCE = """
import os
import sys

from vivit_jax.batches.sources import VideoFiles
from vivit_jax.video.frame_reader import VideoError


class Reporting(VideoFiles):
    def open(self, index):
        if index % 4:
            return super().open(index)
        names = sorted({name.split('.')[0] for name in sys.modules if sys.modules[name]})
        raise VideoError(f'{os.getpid()} ' + ' '.join({'jax', 'jaxlib', 'numpy'} & {*names}))
"""

SCRIPT = """
import vivit_jax  # isort: skip

import itertools
import multiprocessing
import sys
import threading
import time

from reporting import Reporting

from vivit_jax.annotations.check import check_annotations
from vivit_jax.annotations.readers.csv_files import read_csv_files
from vivit_jax.batches.loader import Workers, error_text, train_batches
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.video.crops import RandomCrop


def print_workers():
    while len(multiprocessing.active_children()) < 2:
        time.sleep(0.01)
    print(*[process.pid for process in multiprocessing.active_children()], flush=True)


if __name__ == '__main__':
    crop = RandomCrop(Preprocessing(num_frames=2, short_side=16, crop_size=16))
    rows = check_annotations(read_csv_files({'train': sys.argv[2]}, '', ('label',))).splits['train']
    batches = train_batches(Reporting(rows), crop, batch_size=2, seed=0, workers=Workers(2))
    if sys.argv[1] == 'start':
        threading.Thread(target=print_workers).start()
    first = list(itertools.islice(batches, 4))  # of both workers, in turn
    if sys.argv[1] != 'start':
        print_workers()
    if sys.argv[1] == 'report':
        for batch in [*first, *itertools.islice(batches, 8)]:
            for error in batch['error']:
                if error.any():
                    print(error_text(error))
        batches.close()
        print(len(multiprocessing.active_children()))
    else:
        for batch in batches:
            pass
"""


@pytest.fixture
def command(tmp_path, synthetic_folder):
    (tmp_path / 'reporting.py').write_text(SOURCE)
    (tmp_path / 'script.py').write_text(SCRIPT)

    def start(mode):
        return subprocess.Popen(
            [
                sys.executable,
                str(tmp_path / 'script.py'),
                mode,
                str(synthetic_folder / 'train.csv'),
            ],
            env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
            stdout=subprocess.PIPE,
            text=True,
        )

    return start


def _is_alive(pid):
    try:
        state = Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0]
    except OSError:
        return False
    return state != 'Z'  # in a container in which nothing reaps orphans


@pytest.mark.slow
def test_workers_do_not_import_jax_and_end_with_close(command):
    output, _ = command('report').communicate(timeout=100)
    first, *reports, last = output.splitlines()
    workers = first.split()
    assert len(workers) == 2
    assert len(reports) == 6  # every fourth of 24 videos
    assert {report.split()[0] for report in reports} == set(workers)
    assert {report.split(maxsplit=1)[1] for report in reports} == {'numpy'}
    assert last == '0'


@pytest.mark.slow
@pytest.mark.skipif(not Path('/proc/self/stat').exists(), reason='needs /proc')
@pytest.mark.parametrize(
    ('mode', 'how'),
    [
        ('train', signal.SIGKILL),
        ('train', signal.SIGTERM),
        ('start', signal.SIGKILL),
    ],
)
def test_workers_end_with_killed_trainer(command, mode, how):
    trainer = command(mode)
    workers = []
    try:
        workers = [int(pid) for pid in trainer.stdout.readline().split()]
        assert len(workers) == 2
        assert all(_is_alive(pid) for pid in workers)
        trainer.send_signal(how)
        assert trainer.wait(timeout=10) == -how
        deadline = time.monotonic() + 10
        while any(_is_alive(pid) for pid in workers) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert [pid for pid in workers if _is_alive(pid)] == []
    finally:
        for pid in (trainer.pid, *workers):
            if _is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        trainer.communicate()
