"""Batches that go on when a decoding process dies, or when reading a video does not end."""

import logging
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import TypeVar

from vivit_jax.batches.reads import Reads
from vivit_jax.errors import UserError
from vivit_jax.processes import leave_threads

_Batch = TypeVar('_Batch')

_DIED = 'terminated unexpectedly'  # in the error of Grain when a worker process has died
_LOOK_EVERY_SEC = 1.0
_CLOSE_SEC = 5.0
_START_SEC = 60.0  # that decoding processes may take to start
_GIVE_UP_AFTER = 3  # times `stall_sec`
_MOST_DEATHS = 3  # without `_CALM_BATCHES` batches in between
_CALM_BATCHES = 100

_log = logging.getLogger(__name__)


class DecodingError(UserError):
    """Decoding processes die again and again; the training can save what it has."""


class Supervised(Iterator[_Batch]):
    """The batches of a stream that can begin anywhere, whatever happens to those who make them.

    If a decoding process dies, all are replaced, and the stream goes on where it was. A video that
    two processes died of, one after the other, is given up. If nothing has begun or ended to be
    read for `stall_sec` while a batch is awaited, a line names the videos that are being read.
    After three times as long they are given up: whatever reads them ends, and the stream goes on
    without them.

    Args:
        start: makes the stream from a batch on; reads videos as `Reads.reading` says.
        place: the first batch.
        workers: numbers of decoding processes, 0 for threads of this one, and of their threads.
        stall_sec: see above; 0: never.
        name: the name of a video by its index.

    Raises:
        DecodingError: when a batch is asked for, and decoding processes die again and again.
    """

    def __init__(
        self,
        start: Callable[[int, Reads], Iterator[_Batch]],
        place: int,
        *,
        workers: tuple[int, int],
        stall_sec: float,
        name: Callable[[int], str],
    ):
        self._start, self._place, self._name = start, place, name
        self._num_workers, self._num_threads = workers
        self._stall_sec = stall_sec
        self._deaths, self._calm_at = 0, 0
        self._suspects = set()  # videos that were read by the process that died last
        self._feed = self._begin(())

    def __next__(self) -> _Batch:
        asked = time.monotonic()
        self._feed.ask()
        reported = False
        while True:
            try:
                batch = self._feed.take(_LOOK_EVERY_SEC)
            except queue.Empty:
                changed = self._feed.reads.last_change()
                silent = time.monotonic() - max(asked, changed)
                patience = self._stall_sec if changed else max(self._stall_sec, _START_SEC)
                if not self._stall_sec or silent < patience:
                    continue
                if silent > _GIVE_UP_AFTER * patience:
                    self._give_up(silent)
                    asked, reported = time.monotonic(), False
                elif not reported:
                    self._report(silent, patience)
                    reported = True
            except RuntimeError as error:
                if _DIED not in str(error):
                    raise
                self._replace(error)
            else:
                self._place += 1
                return batch

    def close(self):
        """Ends whatever reads videos."""
        self._feed.close()

    def _begin(self, given_up: Collection[int]) -> '_Feed':
        reads = Reads(max(1, self._num_workers), self._num_threads, given_up)
        return _Feed(self._start(self._place, reads), reads)

    def _report(self, silent: float, patience: float):
        """Says what is being read for so long."""
        reads = [f'process {pid} reads {self._name(i)}' for pid, i in self._feed.reads.current()]
        _log.warning(
            'No batch for %.0f s: %s. After %.0f s, see data.stall_sec, %s',
            silent,
            '; '.join(reads) or 'the decoding processes do not begin to read',
            _GIVE_UP_AFTER * patience,
            'reading is given up' if reads else 'new ones start',
        )

    def _give_up(self, silent: float):
        """Goes on without the videos that are being read."""
        reads = self._feed.reads.current()
        videos = {video for process, video in reads if not _is_stopped(process)}
        if not videos:
            self._count_death('was stopped' if reads else 'did not begin to read')
        for video in sorted(videos):
            _log.warning('Reading was given up after %.0f s: %s', silent, self._name(video))
        self._restart(videos)

    def _replace(self, error: RuntimeError):
        """Goes on after the death of a decoding process."""
        alive = {process.pid for process in multiprocessing.active_children()}
        reads = {video for process, video in self._feed.reads.current() if process not in alive}
        fatal, self._suspects = reads & self._suspects, reads
        how = str(error).partition('exit code ')[2].split('.')[0]
        self._count_death(f'ended with exit code {how}')
        _log.warning(
            'A decoding process ended with exit code %s%s. New ones start; the batches stay the '
            'same',
            how,
            ', killed, perhaps because memory ran out' if how == f'-{signal.SIGKILL:d}' else '',
        )
        for video in sorted(fatal):
            _log.warning('Reading was given up after it ended two processes: %s', self._name(video))
        self._restart(fatal)

    def _count_death(self, how: str):
        self._deaths = 1 if self._place >= self._calm_at else self._deaths + 1
        self._calm_at = self._place + _CALM_BATCHES
        if self._deaths > _MOST_DEATHS:
            raise DecodingError(
                f'decoding processes died {self._deaths} times within few batches; the last one '
                f'{how}. If memory ran out, lower data.num_workers, data.worker_threads, '
                'data.worker_buffer or train.batch_size, and give the same command again'
            )

    def _restart(self, videos: Collection[int]):
        self._feed.kill()
        self._feed = self._begin(self._feed.reads.given_up.union(videos))
        self._feed.ask()


def _is_stopped(process: int) -> bool:
    """Whether a process was stopped by a signal, so that what it reads is not to blame."""
    try:
        state = Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()[0]
    except OSError:  # there is no /proc, or no such process any more
        return False
    return state in 'Tt'


class _Feed:
    """A stream that a thread of its own reads, which can be left behind when it hangs.

    Attributes:
        reads: of the stream.
    """

    def __init__(self, batches: Iterator, reads: Reads):
        self.reads, self._batches = reads, batches
        self._asked, self._given = queue.SimpleQueue(), queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def ask(self):
        """Begins to make the next batch."""
        self._asked.put(True)

    def take(self, timeout: float):
        """The batch that was asked for; raises what making it raised, or `queue.Empty` in time."""
        batch, error = self._given.get(timeout=timeout)
        if error is not None:
            raise error
        return batch

    def close(self):
        """Ends the stream, if need be by force."""
        self._asked.put(False)
        self._thread.join(_CLOSE_SEC)
        if self._thread.is_alive():
            self.kill()
        elif any(process == os.getpid() for process, _ in self.reads.current()):
            leave_threads()

    def kill(self):
        """Kills the processes of the stream, and leaves threads behind that do not end."""
        self._asked.put(False)
        processes = self.reads.processes()
        for process in multiprocessing.active_children():
            if process.pid in processes:
                process.kill()
        self._thread.join(_CLOSE_SEC)
        if self._thread.is_alive():
            leave_threads()
        self.reads.close()

    def _serve(self):
        # Workers start here and inherit the signal mask: Ctrl-C is for the trainer alone.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        while self._asked.get():
            try:
                self._given.put((next(self._batches), None))
            except BaseException as error:
                self._given.put((None, error))
        self._batches.close()
        self.reads.close()
