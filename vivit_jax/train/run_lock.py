"""Keeps two trainings out of one run folder."""

import contextlib
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from vivit_jax.errors import UserError, writing

_log = logging.getLogger(__name__)

_BEAT_SEC = 20  # how often a holder shows that it lives
_GONE_SEC = 70  # after so long without, a holder on another machine is gone


@contextlib.contextmanager
def hold(folder: Path, take_over: bool = False) -> Iterator[None]:
    """Makes a run folder, and holds it for this process until the block ends.

    If the block writes nothing into a new folder, the folder vanishes again.

    The file `lock` in the folder says who holds it, and is touched now and then. A killed process
    leaves it behind. It counts as gone if it does not run on this machine, or if it was on another
    machine and the file is not touched any more.

    Args:
        folder: the run folder.
        take_over: whether to take it from whoever holds it.

    Raises:
        UserError: another process holds the folder, or the folder cannot be written.
    """
    path, is_new = folder / 'lock', not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f'--workdir={folder} cannot be a folder ({error.strerror}): name another'
        ) from error
    with writing(path):
        while not _create(path):
            _free(path, take_over)
    ended = threading.Event()
    threading.Thread(target=_beat, args=(path, ended), daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        with contextlib.suppress(OSError):
            path.unlink()
            if is_new:
                folder.rmdir()  # does nothing if a run has begun in it


def _create(path: Path) -> bool:
    """Makes the file; False if there is one."""
    try:
        file = path.open('x', encoding='utf-8')
    except FileExistsError:
        return False
    holder = {
        'host': socket.gethostname(),
        'process': os.getpid(),
        'started': _start_of(os.getpid()),
        'since': time.strftime('%Y-%m-%d %H:%M:%S'),
    }
    with file:
        json.dump(holder, file)
    return True


def _free(path: Path, take_over: bool):
    """Removes the file if its holder is gone.

    Raises:
        UserError: the holder is not gone.
    """
    try:
        holder = json.loads(path.read_text(encoding='utf-8'))
        who = f'process {holder["process"]} on host {holder["host"]}'
        text = f'{who} has trained in it since {holder["since"]}'
    except FileNotFoundError:
        return  # it has just ended
    except (ValueError, KeyError, TypeError):  # cut short, as on a full disk
        holder, who, text = {}, 'an unknown process', f'{path} exists'
    if take_over:
        is_gone = True
    elif holder.get('host') == socket.gethostname():
        is_gone = _start_of(holder['process']) != holder.get('started')
    else:
        _log.info('%s: %s. Waiting %g s for a sign of life', path.parent, text, _GONE_SEC)
        is_gone = _is_silent(path)
    if not is_gone:
        raise UserError(
            f'{path.parent} is in use: {text}. Stop that training, or name another --workdir; if '
            'it is not running, give --take_over'
        )
    _log.info('%s has been left by %s', path.parent, who)
    aside = path.with_name(f'.lock.{os.getpid()}')
    with contextlib.suppress(FileNotFoundError):  # of several that find it, one removes it
        path.rename(aside)
        aside.unlink()


def _start_of(process: int) -> str | None:
    """When a process started, as its numbers are used again; None if it does not run."""
    try:
        # The 20th field after the name is the start, in ticks since the machine started.
        fields = Path(f'/proc/{process}/stat').read_text().rsplit(')', 1)[1].split()
        boot = Path('/proc/sys/kernel/random/boot_id').read_text().strip()
        return None if fields[0] == 'Z' else f'{boot} {fields[19]}'
    except OSError:
        if Path('/proc/self').exists():
            return None
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return 'unknown'


def _is_silent(path: Path) -> bool:
    """Whether the holder of the file shows no life for a while."""

    def touched() -> int:
        with path.open() as file:  # a network disk looks anew at a file that is opened
            return os.fstat(file.fileno()).st_mtime_ns

    try:
        before, end = touched(), time.monotonic() + _GONE_SEC
        while time.monotonic() < end:
            time.sleep(min(1, _GONE_SEC))
            if touched() != before:
                return False
    except FileNotFoundError:
        return True  # the holder has removed it
    return True


def _beat(path: Path, ended: threading.Event):
    while not ended.wait(_BEAT_SEC):
        with contextlib.suppress(OSError):
            os.utime(path)
