"""What all worker processes have in common."""

import multiprocessing
import os
import threading


def end_with_parent():
    """Ends this process as soon as the one that started it has ended, however it ended."""
    parent = multiprocessing.parent_process()

    def watch():
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
