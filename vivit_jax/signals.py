"""What Ctrl-C does to a command, whatever the command is busy with.

Python runs the handler of a signal between two steps of the main thread. So the signal waits while
this thread compiles, loads a library, or reads from a disk that does not answer; and a library may
catch what the handler raises. A thread that only watches for Ctrl-C ends the process all the same.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator

from vivit_jax.processes import end_now

_STATUS = 128 + signal.SIGINT
_lock = threading.Lock()
_left = 0  # how many more times the main thread handles Ctrl-C


def end_on_ctrl_c():
    """From now on Ctrl-C ends this process at once; a command calls it before its slow imports."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader,), daemon=True).start()


@contextlib.contextmanager
def leave_ctrl_c_to(handler: Callable) -> Iterator[None]:
    """In the block, the first Ctrl-C calls a handler; the second one ends the process at once.

    Args:
        handler: see `signal.signal`.
    """
    previous = signal.signal(signal.SIGINT, handler)
    _leave(1)
    try:
        yield
    finally:
        _leave(0)
        signal.signal(signal.SIGINT, previous)


def _leave(times: int):
    global _left
    with _lock:
        _left = times


def _watch(reader: int):
    global _left
    while True:
        for number in os.read(reader, 64):
            if number != signal.SIGINT:
                continue
            with _lock:
                _left -= 1
                is_over = _left < 0
            if is_over:
                end_now(_STATUS, 'Stopped')
