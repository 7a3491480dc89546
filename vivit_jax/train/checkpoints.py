"""Saving and restoring the state of a training."""

import json
import logging
import os
import re
import time
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint import checkpoint_managers as policies

from vivit_jax.atomic_files import replace_text, replacing
from vivit_jax.errors import UserError, writing
from vivit_jax.model_card import ModelCard
from vivit_jax.train.state import TrainState
from vivit_jax.weights.checksums import find_damage, find_damaged_metrics, write_checksums
from vivit_jax.weights.orbax import (
    BEST,
    BEST_METRICS,
    LAST,
    best_metric,
    has_checkpoints,
    leave_out_echoes,
)

# How long a save may take. Orbax measures it by the clock of the machine, which may jump meanwhile.
_SAVING_SEC = 7 * 86400

_log = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of a run, saved in the background.

    Args:
        folder: `checkpoints` in the run folder.
        keep_last: newest checkpoints to keep.
        keep_best: checkpoints with the highest `best_metric` to keep.
    """

    def __init__(self, folder: Path, keep_last: int, keep_best: int):
        leave_out_echoes()
        # With the plain options the newest checkpoint can lose its place to older, better ones.
        policy = [policies.LatestN(keep_last)]
        if keep_best:
            policy.append(
                policies.BestN(
                    get_metric_fn=best_metric, n=keep_best, keep_checkpoints_without_metrics=False
                )
            )
        self._manager = ocp.CheckpointManager(
            folder.absolute(),
            options=ocp.CheckpointManagerOptions(
                preservation_policy=policies.AnyPreservationPolicy(policy),
                best_fn=best_metric,
                best_mode='max',
                async_options=ocp.options.AsyncOptions(
                    timeout_secs=_SAVING_SEC,
                    create_directories_asynchronously=False,  # another limit by the same clock
                    post_finalization_callback=self._add_checksums,
                ),
            ),
        )
        self._folder = folder
        self._saving = None

    def latest_step(self) -> int | None:
        """The newest complete checkpoint."""
        return self._manager.latest_step()

    def best_and_last(self) -> dict[str, tuple[int, float | None]]:
        """The checkpoints that the names `best` and `last` of a run folder mean.

        Returns:
            For each name the step, and the `best_metric` of its validation if there was one.
        """
        last, best = self._manager.latest_step(), self._manager.best_step()
        steps = {BEST: last if best is None else best, LAST: last}
        return {
            name: (step, best_metric(metrics) if (metrics := self._manager.metrics(step)) else None)
            for name, step in steps.items()
        }

    def link(self):
        """Makes the links `best` and `last` in the run folder, for people and other programs."""
        if jax.process_index():
            return
        for name, (step, _) in self.best_and_last().items():
            try:
                with replacing(self._folder.parent / name) as link:
                    link.unlink(missing_ok=True)
                    link.symlink_to(Path(self._folder.name) / str(step))
            except OSError as error:
                _log.warning('%s cannot be a link: %s', self._folder.parent / name, error)

    def save(self, state: TrainState, card: ModelCard, metrics: dict[str, float]):
        """Saves a step, unless it is there already.

        Args:
            state: may be donated as soon as this returns.
            card: stored beside it.
            metrics: of the validation of this step, or empty.

        Raises:
            UserError: this or the previous save failed, as on a full disk.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state), card=ocp.args.JsonSave(card.to_json())
        )
        kept = _kept(metrics) or None

        def save():
            self._manager.wait_until_finished()
            self._saving = step
            self._manager.save(step, args=items, metrics=kept)

        self._report(save)

    def is_validated(self, step: int) -> bool:
        """Whether the metrics of a validation belong to a checkpoint."""
        return bool(self._manager.metrics(step))

    def add_metrics(self, step: int, metrics: dict[str, float]):
        """Adds the metrics of a validation to a checkpoint that was saved without.

        Raises:
            UserError: they cannot be written.
        """
        path = self._folder / str(step) / 'metrics' / 'metrics'  # where Orbax has them
        if jax.process_index() == 0:
            with writing(path):
                path.parent.mkdir(exist_ok=True)
                replace_text(path, json.dumps(_kept(metrics)))
        self._manager.reload()

    def restore(self, step: int, state: TrainState) -> TrainState:
        """Restores into the shapes, types and shardings of an abstract state.

        Raises:
            UserError: the checkpoint is of another model.
        """
        try:
            return self._manager.restore(
                step, args=ocp.args.Composite(state=ocp.args.StandardRestore(state))
            )['state']
        except ValueError as error:
            raise UserError(
                f'{self._folder}/{step} does not fit the configured model or optimizer: {error}'
            ) from error

    def wait(self):
        """Returns when everything is on the disk."""
        self._report(self._manager.wait_until_finished)

    def close(self):
        """Waits and ends the background threads."""
        self._report(self._manager.close)

    def _add_checksums(self):
        """Called in the background when all files are written, before Orbax renames the folder."""
        if jax.process_index() == 0:
            (unfinished,) = self._folder.glob(f'{self._saving}.orbax-checkpoint-tmp*')
            write_checksums(unfinished)

    def _report(self, action):
        try:
            action()
        except (OSError, ValueError, RuntimeError) as error:
            complete = []
            if self._folder.is_dir():
                complete = sorted(ocp.utils.checkpoint_steps(self._folder.absolute()))
            raise UserError(
                f'a checkpoint could not be saved in {self._folder} ({_reason(error)}). Complete '
                f'checkpoints: {complete or "none"}; make room or mend the folder, and give the '
                'same command again to go on from the newest'
            ) from error


def set_damaged_aside(folder: Path):
    """Moves the newest checkpoints, as long as they are damaged, into a folder `damaged` beside.

    The metrics of a checkpoint are moved alone.

    Every process must call it.

    Args:
        folder: `checkpoints` in the run folder.

    Raises:
        UserError: a damaged checkpoint cannot be moved.
    """
    if jax.process_index() == 0 and has_checkpoints(folder):
        steps = sorted(ocp.utils.checkpoint_steps(folder.absolute()))
        for path in find_damaged_metrics(folder):
            _set_aside(folder, f'{path.parent.name}/metrics')
            _log.warning('%s is damaged: the accuracy of this checkpoint is lost', path)
        while steps and (file := find_damage(folder / str(steps[-1]))):
            step = steps.pop()
            aside = _set_aside(folder, str(step))
            _log.warning(
                'Checkpoint %d is damaged (%s); it is in %s now; going on from %s',
                step,
                file,
                aside,
                f'step {steps[-1]}' if steps else 'the start: there is no other checkpoint',
            )
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices('damaged checkpoints')


def _set_aside(folder: Path, name: str) -> Path:
    """Moves a checkpoint, or a part of it, to `damaged` in the run folder; returns its new path."""
    aside = folder.parent / 'damaged' / f'{name}-{time.strftime("%Y%m%d-%H%M%S")}'
    with writing(aside):
        aside.parent.mkdir(parents=True, exist_ok=True)
        return (folder / name).rename(aside)


def _reason(error: Exception) -> str:
    """Why the disk refused, which the errors of TensorStore hide in a long text."""
    number = re.search(r"os_error_code='(\d+)'", str(error))
    if number:
        return os.strerror(int(number[1]))
    return getattr(error, 'strerror', None) or str(error).partition('\n')[0]


def _kept(metrics: dict[str, float]) -> dict[str, float]:
    """What a checkpoint keeps of the metrics of a validation."""
    return {name: float(value) for name, value in metrics.items() if name in BEST_METRICS}
