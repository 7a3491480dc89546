"""Which video each decoding thread reads, as the process sees it that waits for the batches."""

import contextlib
import itertools
import os
import tempfile
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

_SHARED_MEMORY = Path('/dev/shm')  # where Linux shows it as files
_OPEN_FILES = Path('/proc')  # where Linux shows the open files of every process
_PROCESS, _VIDEO, _CHANGED = range(3)  # columns: the video + 1, or 0 for none; time in ns

_worker = 0  # number of this process among those that decode together


def set_worker(number: int):
    """Says which of the decoding processes this one is, before it gets its `Reads`."""
    global _worker
    _worker = number


class Reads:
    """A table with a row for each decoding thread, in memory that all processes share.

    Args:
        num_workers: processes that decode.
        num_threads: decoding threads of each of them.
        given_up: videos that nobody reads any more, because reading them did not end.
    """

    def __init__(self, num_workers: int, num_threads: int, given_up: Collection[int] = ()):
        self.given_up = frozenset(given_up)
        self._num_threads = num_threads
        folder = _SHARED_MEMORY if _SHARED_MEMORY.is_dir() else None
        handle, self._path = tempfile.mkstemp(prefix='vivit_jax_reads_', dir=folder)
        self._file = os.fdopen(handle, 'wb')
        self._file.write(bytes(8 * (_CHANGED + 1) * num_workers * num_threads))
        self._file.flush()
        if _OPEN_FILES.is_dir():  # without a name, nothing is left if this process is killed
            os.unlink(self._path)
            self._path = str(_OPEN_FILES / str(os.getpid()) / 'fd' / str(handle))
        self._open()

    def _open(self):
        self._table = np.memmap(self._path, np.int64, 'r+').reshape(-1, _CHANGED + 1)
        rows = _worker * self._num_threads + np.arange(self._num_threads)
        self._rows = itertools.cycle(rows.tolist())
        self._of_thread = threading.local()
        self._table[rows, _PROCESS] = os.getpid()

    def __getstate__(self) -> dict:
        return {key: self.__dict__[key] for key in ('given_up', '_num_threads', '_path')}

    def __setstate__(self, state: dict):
        self.__dict__.update(state)
        self._open()

    def close(self):
        """Removes the file of the table; processes that have it open keep it."""
        self._file.close()
        if _OPEN_FILES not in Path(self._path).parents:
            Path(self._path).unlink(missing_ok=True)

    @contextlib.contextmanager
    def reading(self, video: int) -> Iterator[None]:
        """Notes that this thread reads a video in the block."""
        if not hasattr(self._of_thread, 'row'):
            self._of_thread.row = next(self._rows)
        row = self._of_thread.row
        self._table[row, _VIDEO:] = video + 1, time.monotonic_ns()
        try:
            yield
        finally:
            self._table[row, _VIDEO:] = 0, time.monotonic_ns()

    def last_change(self) -> float:
        """`time.monotonic()` when a thread began or ended to read a video; 0 if none did yet."""
        return self._table[:, _CHANGED].max() / 1e9

    def processes(self) -> set[int]:
        """The processes that read."""
        return {*self._table[:, _PROCESS].tolist()} - {0}

    def current(self) -> list[tuple[int, int]]:
        """(process, video) of each thread that reads a video."""
        rows = self._table[self._table[:, _VIDEO] > 0].tolist()
        return [(process, video - 1) for process, video, _ in rows]
