import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from vivit_jax.errors import UserError
from vivit_jax.train import run_lock
from vivit_jax.train.run_lock import Lock, hold

HOLD = 'import pathlib, sys, time; from vivit_jax.train.run_lock import hold\n' + (
    'with hold(pathlib.Path(sys.argv[1])):\n    print("held", flush=True)\n    time.sleep(60)'
)


@pytest.fixture
def other(tmp_path):
    """A process that holds the folder."""
    command = [sys.executable, '-c', HOLD, tmp_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == 'held\n'
        yield process
        process.kill()


def test_a_folder_is_held_once_and_then_free(tmp_path, other):
    with pytest.raises(UserError, match=rf'in use: process {other.pid} on host .*--take_over'):
        hold(tmp_path).__enter__()
    other.kill()
    other.wait()
    with hold(tmp_path):
        assert json.loads((tmp_path / 'lock').read_text())['process'] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_a_folder_can_be_taken_over(tmp_path, other):
    with hold(tmp_path, take_over=True):
        assert json.loads((tmp_path / 'lock').read_text())['process'] != other.pid


def test_a_later_process_of_the_same_number_is_another_one(tmp_path):
    with hold(tmp_path):
        lock = (tmp_path / 'lock').read_text()
    (tmp_path / 'lock').write_text(json.dumps({**json.loads(lock), 'started': 'boot 1'}))
    with hold(tmp_path):
        pass


@pytest.mark.parametrize('lives', [True, False])
@pytest.mark.parametrize('text', ['', '{"host": "elsewhere", "process": 1, "since": "today"}'])
def test_a_holder_elsewhere_is_gone_when_it_shows_no_life(tmp_path, monkeypatch, lives, text):
    monkeypatch.setattr(run_lock, '_GONE_SEC', 0.3)
    monkeypatch.setattr(run_lock, '_BEAT_SEC', 0.05)
    path, ended = tmp_path / 'lock', threading.Event()
    path.write_text(text)
    if lives:
        threading.Thread(target=run_lock._beat, args=(Lock(path, text), ended)).start()
    time.sleep(0.1)
    try:
        if lives:
            with pytest.raises(UserError, match='is in use'):
                hold(tmp_path).__enter__()
        else:
            with hold(tmp_path):
                pass
    finally:
        ended.set()


@pytest.mark.parametrize(
    ('spoil', 'reason'),
    [
        (shutil.rmtree, 'it was deleted or moved'),
        (lambda folder: folder.rename(folder.with_name('moved')), 'it was deleted or moved'),
        (lambda folder: (folder / 'lock').write_text('{}'), 'another training has taken it'),
    ],
    ids=['deleted', 'moved', 'taken'],
)
def test_the_holder_notices_that_the_folder_is_lost(tmp_path, monkeypatch, spoil, reason):
    monkeypatch.setattr(run_lock, '_BEAT_SEC', 0.02)
    folder = tmp_path / 'run'
    with hold(folder) as lock:
        time.sleep(0.1)
        lock.check()
        spoil(folder)
        time.sleep(0.1)
        with pytest.raises(UserError, match=f'run is no longer the run folder.*{reason}'):
            lock.check()
        left = sorted(tmp_path.rglob('*'))
    assert sorted(tmp_path.rglob('*')) == left  # the lock of another training stays


def test_a_full_disk_leaves_no_lock_that_looks_held(tmp_path, monkeypatch):
    folder, opened = tmp_path / 'run', Path.open

    def refuse(path, *args, **more):
        file = opened(path, *args, **more)
        return opened(Path('/dev/full'), 'w') if path == folder / 'lock' else file

    monkeypatch.setattr(Path, 'open', refuse)
    with pytest.raises(UserError, match=r'lock cannot be written \(No space left'):
        hold(folder).__enter__()
    assert not (folder / 'lock').exists()


def test_an_unused_new_folder_vanishes(tmp_path):
    with hold(tmp_path / 'unused'):
        pass
    with hold(tmp_path / 'used'):
        (tmp_path / 'used' / 'config.json').touch()
    assert [path.name for path in tmp_path.iterdir()] == ['used']


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match=r'--workdir=.*file cannot be a folder'):
        hold(tmp_path / 'file').__enter__()
