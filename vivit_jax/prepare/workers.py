"""Tasks in worker processes; if one dies, the others go on."""

import multiprocessing
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import TypeVar

from vivit_jax.errors import UserError
from vivit_jax.processes import end_with_parent

_Task = TypeVar('_Task')


class Died(str):
    """Why a process ended in the middle of a task."""


def run_tasks(
    function: Callable[[_Task], Iterable], tasks: Sequence[_Task], num_workers: int
) -> Iterator[tuple[int, object]]:
    """Runs tasks in processes that never import JAX unless `function`'s module does.

    Args:
        function: gives values, one after the other; of a module, so that a process can import it.
        tasks: what it is called with.
        num_workers: processes.

    Yields:
        (place of the task, value) for every value as soon as it is there, and (place, `Died`) where
        the process died; the next tasks go to a new one.

    Raises:
        UserError: `function` did.
        RuntimeError: `function` raised something else, or no process can be started.
    """
    left = iter(enumerate(tasks))
    workers = {}

    def start():
        worker = _Worker(function)
        workers[worker.connection] = worker

    try:
        for _ in range(min(num_workers, len(tasks))):
            start()
        while workers:
            for connection in wait(list(workers)):
                worker = workers[connection]
                try:
                    kind, value = connection.recv()
                except (EOFError, ConnectionError):
                    del workers[connection]
                    reason = worker.end(patience_sec=5.0)
                    if worker.place is None:
                        raise RuntimeError(f'no worker process can be started: {reason}') from None
                    yield worker.place, Died(reason)
                    start()
                    continue
                if kind == 'value':
                    yield worker.place, value
                elif kind == 'error':
                    raise value
                elif (following := next(left, None)) is not None:
                    worker.place, task = following
                    connection.send(task)
                else:
                    del workers[connection]
                    worker.end()
    finally:
        for worker in workers.values():
            worker.end()


class _Worker:
    """A process, and the place of the task that it works on."""

    def __init__(self, function: Callable):
        context = multiprocessing.get_context('spawn')
        self.place = None
        self.connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, function), daemon=True)
        # It inherits the signal mask: Ctrl-C is for the parent alone.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            self._process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        theirs.close()

    def end(self, patience_sec: float = 0.0) -> str:
        """Ends the process, unless it does so by itself in time, and says how it ended."""
        self._process.join(patience_sec)
        self._process.kill()
        self._process.join()
        self.connection.close()
        status = self._process.exitcode
        name = signal.Signals(-status).name if status < 0 else f'exit status {status}'
        return f'the process that read it died ({name})'


def _serve(connection: Connection, function: Callable):
    end_with_parent()
    while True:
        connection.send(('next', None))
        try:
            task = connection.recv()
        except EOFError:
            return
        try:
            for value in function(task):
                connection.send(('value', value))
        except UserError as error:
            connection.send(('error', error))
        except Exception:
            connection.send(('error', RuntimeError(traceback.format_exc())))
