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


class Lock:
    """A run folder that this process holds; see `hold`.

    Args:
        path: of the file that says who holds the folder.
        text: what this process wrote into the file.
    """

    def __init__(self, path: Path, text: str):
        self._path, self._text, self._problem = path, text, None

    def look(self):
        """Finds out whether the folder is still held, and shows other processes that it is.

        A disk that does not answer now, such as one in the network, changes nothing.
        """
        with contextlib.suppress(OSError):
            self._look()

    def _look(self):
        try:
            if self._path.read_text(encoding='utf-8') != self._text:
                self._problem = 'another training has taken it'
            else:
                os.utime(self._path)
        except FileNotFoundError:
            self._problem = f'it was deleted or moved, or {self._path.name} in it was removed'

    def check(self):
        """Raises a UserError if the folder was lost when `look` looked at it last."""
        if self._problem:
            raise UserError(
                f'{self._path.parent} is no longer the run folder of this training: '
                f'{self._problem}. Nothing more is written. Give the same command again to go on '
                'from the newest checkpoint in the folder, or from the start if there is none'
            )

    def release(self):
        """Lets others have the folder."""
        self.look()
        if not self._problem:
            with contextlib.suppress(OSError):
                self._path.unlink()


@contextlib.contextmanager
def hold(folder: Path, take_over: bool = False) -> Iterator[Lock]:
    """Makes a run folder, and holds it for this process until the block ends.

    If the block writes nothing into a new folder, the folder vanishes again.

    The file `lock` in the folder says who holds it, and is touched now and then. A killed process
    leaves it behind. It counts as gone if it does not run on this machine, or if it was on another
    machine and the file is not touched any more. The process that holds the folder looks now and
    then whether the file is still its own.

    Args:
        folder: the run folder.
        take_over: whether to take it from whoever holds it.

    Raises:
        UserError: another process holds the folder, or the folder cannot be written.
    """
    path, is_new = folder / 'lock', not os.path.exists(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f'--workdir={folder} cannot be a folder ({error.strerror}): name another'
        ) from error
    with writing(path):
        while (lock := _create(path)) is None:
            _free(path, take_over)
    ended = threading.Event()
    threading.Thread(target=_beat, args=(lock, ended), daemon=True).start()
    try:
        yield lock
    finally:
        ended.set()
        lock.release()
        if is_new:
            with contextlib.suppress(OSError):
                folder.rmdir()  # does nothing if a run has begun in it


def _create(path: Path) -> Lock | None:
    """Makes the file; None if there is one."""
    try:
        file = path.open('x', encoding='utf-8')
    except FileExistsError:
        return None
    holder = {
        'host': socket.gethostname(),
        'process': os.getpid(),
        'started': _start_of(os.getpid()),
        'since': time.strftime('%Y-%m-%d %H:%M:%S'),
    }
    text = json.dumps(holder)
    try:
        with file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink()  # an empty file would look like a holder on another machine
        raise
    return Lock(path, text)


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


def _beat(lock: Lock, ended: threading.Event):
    while not ended.wait(_BEAT_SEC):
        lock.look()
