"""Processes that work together: those that train, and those that decode for them."""

import contextlib
import dataclasses
import multiprocessing
import os
import sys
import threading

has_left_threads = False  # see `leave_threads`


@dataclasses.dataclass(frozen=True)
class Host:
    """A process among all that train together; host p loads rows p·b … (p+1)·b-1."""

    index: int = 0
    count: int = 1


def end_with_parent():
    """Ends this process as soon as its parent process has ended, however the parent ended."""
    parent = multiprocessing.parent_process()

    def watch():
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def leave_threads():
    """Notes that the usual end of this process would hang, so that it must end by `end_now`."""
    global has_left_threads
    has_left_threads = True


def end_now(status: int, message: str = ''):
    """Ends this process and those that it started, whatever their threads are doing.

    Args:
        status: the exit status.
        message: printed last.
    """
    for process in multiprocessing.active_children():
        process.kill()  # a process that hangs would not notice that this one has ended

    def say():
        if message:
            print(message, file=sys.stderr)
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
                stream.flush()

    speaker = threading.Thread(target=say, daemon=True)  # the reader may have stopped reading
    speaker.start()
    speaker.join(0.5)
    os._exit(status)
