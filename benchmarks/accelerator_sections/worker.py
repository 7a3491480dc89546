"""Runs tasks in processes of their own, so that the crash of one does not stop the others."""

import importlib
import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence

from accelerator_sections.plan import Settings, Task
from accelerator_sections.rows import describe


class Worker:
    """A process that runs tasks, one after another.

    Args:
        library: the library that may use the device, see `Task`.
        settings: settings of the run.
        rows: the rows measured before.
    """

    def __init__(self, library: str, settings: Settings, rows: Sequence[dict]):
        context = multiprocessing.get_context('spawn')
        self._pipe, theirs = context.Pipe()
        arguments = (theirs, library, settings, list(rows))
        self._process = context.Process(target=_serve, args=arguments)
        self._process.start()
        theirs.close()
        self.is_sound = True  # a device may be unusable after an error

    def run(self, task: Task, limit: float) -> Iterator[dict]:
        """Yields rows of a task as they come; if the task does not end, a last row says why.

        Args:
            task: the task to run.
            limit: seconds after which the task is stopped.
        """
        end, reason = time.monotonic() + limit, ''
        try:
            self._pipe.send(task)
            while self._pipe.poll(max(0, end - time.monotonic())):
                row = self._pipe.recv()
                if row is None:
                    return
                self.is_sound &= row['status'] != 'failed'
                yield row
            reason = f'stopped after {limit:.0f} s'
        except (OSError, EOFError):
            self._process.join(10)
            reason = f'its process died, exit status {self._process.exitcode}'
        self.close()
        yield {'name': task.name, 'status': 'failed', 'reason': reason}

    def close(self):
        """Ends the process."""
        self.is_sound = False
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _serve(pipe, library: str, settings: Settings, rows: list[dict]):
    if library == 'jax':
        os.environ.setdefault('XLA_PYTHON_CLIENT_MEM_FRACTION', '0.92')  # of a GPU, at once
    else:
        os.environ['JAX_PLATFORMS'] = 'cpu'  # leaves all of it to PyTorch
    while task := _receive(pipe):
        try:
            module, _, function = task.function.partition(':')
            measure = getattr(importlib.import_module(module), function)
            for row in measure(settings, rows, *task.arguments):
                row = {'section': task.section, **row}
                rows.append(row)
                pipe.send(row)
        except Exception as error:
            pipe.send({'name': task.name, 'status': 'failed', 'reason': describe(error)})
        pipe.send(None)


def _receive(pipe) -> Task | None:
    """The next task; None if the process that sends tasks has ended."""
    try:
        return pipe.recv()
    except EOFError:
        return None
