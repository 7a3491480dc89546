"""Stops a training early, on Ctrl-C or SIGTERM, at the same step in every process."""

import contextlib
import logging
import os
import signal
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

_log = logging.getLogger(__name__)


class Stop:
    """Whether this process, or another one of the same program, was asked to stop."""

    def __init__(self):
        self._signal = 0

    def reached(self, step: int) -> bool:
        """Whether to stop after this step; every process must ask after every step.

        Of several processes, JAX chooses a step that all of them still have to reach.
        """
        if jax.process_count() == 1:
            return bool(self._signal)
        if multihost_utils.reached_preemption_sync_point(step):
            self._signal = self._signal or signal.SIGTERM
            return True
        return False

    @property
    def at_once(self) -> bool:
        """Whether to leave a validation: only a process that is alone may."""
        return jax.process_count() == 1 and bool(self._signal)

    @property
    def exit_status(self) -> int:
        """128 and the number of the signal, as shells have it."""
        return 128 + self._signal

    def ask(self, number: int, _frame: object):
        """Handles a signal; the second one ends the process at once."""
        if self._signal:
            raise KeyboardInterrupt
        self._signal = number
        _log.info('Stopping after this step, with a checkpoint; once more to stop at once')
        if jax.process_count() > 1:  # JAX's own handler tells the other processes
            os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def stop_signals() -> Iterator[Stop]:
    """Catches Ctrl-C and SIGTERM.

    Of several processes, JAX catches SIGTERM, and tells all others.
    """
    stop = Stop()
    numbers = [signal.SIGINT] + [signal.SIGTERM] * (jax.process_count() == 1)
    handlers = {number: signal.signal(number, stop.ask) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
