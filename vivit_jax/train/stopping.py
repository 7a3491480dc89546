"""Stops a training early, on Ctrl-C or SIGTERM, at the same step in every process."""

import contextlib
import logging
import os
import signal
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

from vivit_jax.signals import leave_ctrl_c_to

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
        """Handles a signal. After it, Ctrl-C ends the process at once, and SIGTERM does nothing."""
        if self._signal and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self._signal:
            return
        self._signal = number
        _log.info('Stopping after this step, with a checkpoint; Ctrl-C once more stops at once')
        if jax.process_count() > 1:  # JAX's own handler tells the other processes
            os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def stop_signals(stop: Stop) -> Iterator[None]:
    """Leaves Ctrl-C and SIGTERM to `stop` in the block.

    Of several processes, JAX catches SIGTERM, and tells all others.
    """
    with leave_ctrl_c_to(stop.ask):
        if jax.process_count() > 1:
            yield
            return
        previous = signal.signal(signal.SIGTERM, stop.ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, previous)
