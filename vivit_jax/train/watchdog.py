"""Reports a training that hangs."""

import contextlib
import faulthandler
import logging
import socket
import sys
import threading
import time
from collections.abc import Iterator

import jax

_log = logging.getLogger(__name__)


class Watchdog:
    """Says when nothing has happened for a while; see `watch`.

    Of several processes, usually one is lost or hangs, and the others wait for it. JAX ends the
    others when one gives no sign of life. If one hangs, the stacks tell which.

    Args:
        hang_sec: after so long the stack of every thread is printed; 0: never.
        lost_sec: after so long without a sign of life JAX counts a process as lost.
    """

    def __init__(self, hang_sec: float, lost_sec: float):
        self._hang_sec, self._lost_sec = hang_sec, lost_sec
        self._doing, self._since, self._waits = 'starting', time.monotonic(), False

    def alive(self, doing: str, waits: bool = False):
        """Says what the training goes on to do.

        Args:
            doing: such as `'training step 7'`.
            waits: whether this takes long only if other processes do not take part.
        """
        self._doing, self._since, self._waits = doing, time.monotonic(), waits

    def run(self, ended: threading.Event):
        """Watches until the event."""
        noticed = reported = None
        while not ended.wait(1):
            since, silence = self._since, time.monotonic() - self._since
            if self._waits and jax.process_count() > 1 and silence > self._lost_sec / 2:
                if noticed != since:
                    self._notice(silence)
                noticed = since
            if self._hang_sec and silence > self._hang_sec and reported != since:
                reported = since
                self._report(silence)

    def _notice(self, silence: float):
        _log.warning(
            'Process %d of %d has waited for the others for %.0f s, in %s. If one of them is lost, '
            'all end with an error of JAX when it has given no sign of life for %g s; its log says '
            'why. Then start all of them again with the same command: the run goes on from its '
            'newest checkpoint',
            jax.process_index(),
            jax.process_count(),
            silence,
            self._doing,
            self._lost_sec,
        )

    def _report(self, silence: float):
        _log.warning(
            'Process %d of %d on host %s has hung for %.0f s, in %s. The stack of every thread:',
            jax.process_index(),
            jax.process_count(),
            socket.gethostname(),
            silence,
            self._doing,
        )
        faulthandler.dump_traceback(sys.stderr)


@contextlib.contextmanager
def watch(hang_sec: float, lost_sec: float) -> Iterator[Watchdog]:
    """Runs a watchdog in a thread of its own, see `Watchdog`."""
    watchdog, ended = Watchdog(hang_sec, lost_sec), threading.Event()
    threading.Thread(target=watchdog.run, args=(ended,), daemon=True).start()
    try:
        yield watchdog
    finally:
        ended.set()
