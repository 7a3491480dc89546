"""Metrics for Weights & Biases."""

import contextlib
import logging
import secrets
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from vivit_jax.atomic_files import replace_text
from vivit_jax.errors import UserError
from vivit_jax.processes import leave_threads

_log = logging.getLogger(__name__)

_FINISH_SEC = 60


def find_wandb() -> Callable:
    """The function `wandb.init`.

    Raises:
        UserError: wandb is not installed.
    """
    try:
        from wandb import init  # a folder `wandb`, which runs leave behind, has none
    except ImportError as error:
        raise UserError(
            f'train.wandb_project needs Weights & Biases ({error}): pip install wandb, or set '
            "train.wandb_project=''"
        ) from error
    return init


class WeightsAndBiases:
    """Sends metrics to a run of Weights & Biases, until that fails: the training goes on without.

    Args:
        folder: the run folder, whose name the run gets. A file `wandb_id.txt` in it says which run
            a resumed training goes on with.
        project: the name of the project.
        config: of the training.

    Raises:
        UserError: wandb is not installed.
    """

    def __init__(self, folder: Path, project: str, config: Mapping[str, object]):
        self._run, init = None, find_wandb()
        with self._until_it_fails():
            path = folder / 'wandb_id.txt'
            if not path.exists():
                replace_text(path, secrets.token_hex(8))
            self._run = init(
                project=project,
                name=folder.resolve().name,
                id=path.read_text('utf-8'),
                resume='allow',
                dir=str(folder),
                config=dict(config),
            )
            # Its own step cannot go back, as a resumed training does.
            self._run.define_metric('*', step_metric='step')

    def write(self, step: int, metrics: Mapping[str, float]):
        """Sends the metrics of a step, in the background."""
        if self._run is not None:
            with self._until_it_fails():
                self._run.log({'step': step, **metrics})

    def close(self):
        """Waits up to a minute until everything is sent."""
        run, self._run = self._run, None
        if run is None:
            return

        def finish():
            with self._until_it_fails():
                run.finish()

        thread = threading.Thread(target=finish, daemon=True)
        thread.start()
        thread.join(_FINISH_SEC)
        if thread.is_alive():
            _log.warning('Weights & Biases did not get everything; `wandb sync` sends the rest')
            leave_threads()

    @contextlib.contextmanager
    def _until_it_fails(self):
        try:
            yield
        except Exception as error:  # of the network, or whatever a new version raises
            self._run = None
            _log.warning('Weights & Biases gets no more metrics of this run: %s', error)
