"""The commands' way to the terminal: log lines, and a user's mistake in one message."""

import logging
import logging.handlers
import os
import re
import select
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from absl import app, flags
from absl import logging as absl_logging
from tqdm import tqdm

from vivit_jax import processes
from vivit_jax.errors import UserError
from vivit_jax.processes import end_now
from vivit_jax.signals import leave_ctrl_c_to

_logger = logging.getLogger('vivit_jax')
# Keeps the lines that come before the run folder is known.
_earlier = logging.handlers.MemoryHandler(capacity=0, flushLevel=logging.CRITICAL + 1)


def parse_flags(argv: list[str]) -> list[str]:
    """Parses a command line; a mistake in it becomes one line and exit status 2.

    Returns:
        The arguments that are no flags, after the name of the command.
    """
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        missing = re.match(r'flag --(\w+)=None: .* must have a value other than None', str(error))
        print(f'Error: {f"give --{missing[1]}" if missing else error}', file=sys.stderr)
        sys.exit(2)


def run(
    main: Callable[[list[str]], int | None],
    flags_parser: Callable[[list[str]], list[str]] = parse_flags,
    cleans_up: bool = True,
):
    """Runs a command; if it raises a UserError, prints the message and exits with 2.

    Wrong flags exit with 2 too, and `--help` with 0; absl exits with 1 after both. If the reader of
    the output has gone, as in `... | head`, the command ends without a word.

    Args:
        main: gets the arguments that are no flags, and returns an exit status.
        flags_parser: parses the command line.
        cleans_up: whether Ctrl-C raises KeyboardInterrupt in `main`, which removes unfinished
            files; otherwise it ends the process at once, unless `main` has its own handler.
    """
    started = False

    def guarded(argv: list[str]):
        nonlocal started
        started = True
        _log_to_stderr()
        try:
            with leave_ctrl_c_to(signal.default_int_handler) if cleans_up else nullcontext():
                status = main(argv[1:])
        except UserError as error:
            _say_last(f'Error: {error}')
            status = 2
        except PermissionError as error:
            if error.filename is None:
                raise
            _say_last(f'Error: {error.filename} cannot be used (Permission denied)')
            status = 2
        except Exception:
            if processes.has_left_threads:
                traceback.print_exc()
                end_now(1)
            raise
        except KeyboardInterrupt:
            _say_last('Stopped')
            end_now(128 + signal.SIGINT)  # libraries may still be at work, and would crash
        if processes.has_left_threads:
            end_now(status or 0)
        sys.exit(status)

    try:
        try:
            app.run(guarded, flags_parser=flags_parser)
        except SystemExit as exited:
            if started or exited.code != 1:
                raise
            sys.exit(0 if any(arg.lstrip('-').startswith('help') for arg in sys.argv[1:]) else 2)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        # Python flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)  # what a shell says of a program that ends like this


def _reader_is_gone() -> bool:
    """Whether nothing reads the pipe that is this process's output."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), select.POLLOUT)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def log_to_file(path: Path):
    """Adds the log lines of this command to a file too, those before this call included."""
    file = logging.FileHandler(path, encoding='utf-8')
    file.setFormatter(logging.Formatter('%(asctime)s %(message)s', '%Y-%m-%d %H:%M:%S'))
    file.handleError = lambda record: None  # on a full disk the terminal still has every line
    _earlier.setTarget(file)
    _earlier.flush()
    _logger.removeHandler(_earlier)
    _logger.addHandler(file)


def end_log_file():
    """Closes the file of `log_to_file`; the lines that follow are kept for the next one."""
    for handler in _logger.handlers[:]:
        if isinstance(handler, logging.FileHandler):
            _logger.removeHandler(handler)
            handler.close()
            _earlier.buffer.clear()
            _earlier.setTarget(None)
            _logger.addHandler(_earlier)


class _AboveBar(logging.Handler):
    """Prints above a progress bar, where there is one, instead of through it."""

    def emit(self, record: logging.LogRecord):
        tqdm.write(self.format(record), file=sys.stderr)


def _log_to_stderr():
    absl_logging.set_verbosity(absl_logging.ERROR)  # Orbax tells every detail
    handler = _AboveBar()
    handler.setFormatter(logging.Formatter('%(asctime)s %(message)s', '%H:%M:%S'))
    _logger.setLevel(logging.INFO)
    _logger.propagate = False
    _logger.handlers = [handler, _earlier]


def _say_last(message: str):
    """Prints why a command ends, and adds it to the log file, if there is one."""
    print(message, file=sys.stderr)
    record = logging.LogRecord(_logger.name, logging.ERROR, '', 0, message, None, None)
    for handler in _logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)
