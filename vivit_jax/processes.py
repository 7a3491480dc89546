"""Processes that work together: those that train, and those that decode for them."""

import dataclasses
import multiprocessing
import os
import threading


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
