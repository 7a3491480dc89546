"""Metrics for TensorBoard."""

import contextlib
import logging
import sys
import time
from collections.abc import Mapping
from pathlib import Path

_log = logging.getLogger(__name__)

_FLUSH_EVERY_SEC = 30


class TensorBoard:
    """Writes metrics to an events file, until the disk refuses: the training goes on without.

    Args:
        folder: of the events file.
        step: TensorBoard forgets what it has of later steps; 0: it has nothing.
    """

    def __init__(self, folder: Path, step: int):
        self._events, self._summaries, create_writer = _tensorboardx()
        self._writer, self._flushed = None, time.monotonic()
        with self._until_refused():
            self._writer = create_writer(str(folder / 'events'))
        if step:
            start = self._events.SessionLog(status=self._events.SessionLog.START)
            self._add(self._events.Event(step=step + 1, wall_time=time.time(), session_log=start))

    def write(self, step: int, metrics: Mapping[str, float]):
        """Writes the metrics of a step; they are on the disk within a minute, or after `flush`."""
        values = [
            self._summaries.Summary.Value(tag=name, simple_value=value)
            for name, value in metrics.items()
        ]
        summary = self._summaries.Summary(value=values)
        self._add(self._events.Event(step=step, wall_time=time.time(), summary=summary))

    def flush(self):
        """Writes all to the disk."""
        if self._writer is not None:
            with self._until_refused():
                self._writer.flush()
        self._flushed = time.monotonic()

    def close(self):
        """Flushes and closes the file."""
        if self._writer is not None:
            with self._until_refused():
                self._writer.close()
        self._writer = None

    def _add(self, event: object):
        if self._writer is not None:
            with self._until_refused():
                self._writer.write_event(event)
        if time.monotonic() - self._flushed > _FLUSH_EVERY_SEC:
            self.flush()

    @contextlib.contextmanager
    def _until_refused(self):
        try:
            yield
        except OSError as error:
            _log.warning('TensorBoard gets no more metrics of this run: %s', error)
            writer, self._writer = self._writer, None
            if writer is not None:
                with contextlib.suppress(OSError):
                    writer.close()


def _tensorboardx() -> tuple:
    """TensorboardX's messages of events and of summaries, and its writer of event files.

    If PyTorch is installed, tensorboardX imports it, which takes seconds and serves nothing here.
    So PyTorch is hidden during the import, unless this process has imported PyTorch before. The
    usual writer of tensorboardX has a thread, and waits for ever when the thread has failed.
    """
    hides = 'torch' not in sys.modules
    if hides:
        sys.modules['torch'] = None
    try:
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto import event_pb2, summary_pb2
    finally:
        if hides:
            del sys.modules['torch']
    return event_pb2, summary_pb2, EventsWriter
