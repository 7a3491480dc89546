"""Traces of what host and devices do in some steps of a training."""

import logging
from collections.abc import Sequence
from pathlib import Path

import jax

from vivit_jax.errors import UserError

_log = logging.getLogger(__name__)


def parse_profile_steps(words: Sequence[str]) -> tuple[int, int]:
    """The first and the last step of `--profile_steps=10,20`.

    Raises:
        UserError: the words are not two numbers from 1 that rise.
    """
    try:
        first, last = map(int, words)
    except ValueError:
        first, last = 0, 0
    if not 1 <= first <= last:
        raise UserError(
            f'--profile_steps={",".join(words)} must be the first and the last step, from 1, of a '
            'trace, such as 10,20'
        )
    return first, last


class Profiler:
    """Records a trace, for TensorBoard with XProf and for Perfetto.

    Process 0 records its host and its devices. If a trace cannot be recorded or written, the
    training goes on without it.

    Args:
        folder: where the trace will be, in `plugins/profile/<time>`.
        steps: the first and the last step of the trace; None: there will be none.
        done: steps of the training that are done.
        num_steps: of the training.

    Raises:
        UserError: the training has no such steps any more.
    """

    def __init__(self, folder: Path, steps: tuple[int, int] | None, done: int, num_steps: int):
        if steps and not done < steps[0] <= steps[1] <= num_steps:
            raise UserError(
                f'--profile_steps={steps[0]},{steps[1]}: the training has the steps '
                f'{done + 1} to {num_steps} before it'
                if done < num_steps
                else f'--profile_steps={steps[0]},{steps[1]}: all {num_steps} steps are done'
            )
        self._folder, self._is_running = folder, False
        self._first, self._last = steps if steps and jax.process_index() == 0 else (0, 0)

    def start(self, step: int):
        """Begins the trace, if it begins with this step."""
        if step != self._first:
            return
        options = jax.profiler.ProfileOptions()
        options.python_tracer_level = 0  # the functions of Python would crowd out the rest
        try:
            jax.profiler.start_trace(
                self._folder, create_perfetto_trace=True, profiler_options=options
            )
            self._is_running = True
        except Exception as error:
            _log.warning('There is no trace of step %d: %s', step, error)

    def is_over(self, step: int) -> bool:
        """Whether a trace ends with this step."""
        return self._is_running and step == self._last

    def stop(self):
        """Writes the trace, if there is one; the work of its last step must be done."""
        if not self._is_running:
            return
        self._is_running = False
        try:
            jax.profiler.stop_trace()
            _log.info('%s has a trace from step %d on', self._folder, self._first)
        except Exception as error:
            _log.warning('The trace cannot be written to %s: %s', self._folder, error)
