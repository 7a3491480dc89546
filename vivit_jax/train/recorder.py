"""The record of every training step: metrics, progress and unusable videos."""

import logging
import math
import shlex
import time
from collections.abc import Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

from vivit_jax.batches.loader import Batch, error_text
from vivit_jax.batches.sources import VideoSource
from vivit_jax.config.load import flatten
from vivit_jax.errors import UserError
from vivit_jax.train.advice import Advice
from vivit_jax.train.run_folder import BadVideos
from vivit_jax.train.writers import MetricWriter, Progress, host_rss_gb
from vivit_jax.weights.orbax import has_checkpoints

_log = logging.getLogger(__name__)


class Recorder:
    """Takes a step's metrics from the device while the next step runs, and writes them.

    Args:
        workdir: the run folder.
        config: of the run.
        source: the training videos.
        heads: names of the classifier's heads.
        advice: on the training.
        first_step: the last step that was done before.
        num_steps: of the whole training.
    """

    def __init__(
        self,
        workdir: Path,
        config: ConfigDict,
        source: VideoSource,
        *,
        heads: Sequence[str],
        advice: Advice,
        first_step: int,
        num_steps: int,
    ):
        first_host = jax.process_index() == 0
        self._workdir, self._config = workdir, config
        self._batch_size = config.train.batch_size
        self._source, self._advice = source, advice
        self._writer = MetricWriter(
            workdir,
            first_step,
            active=first_host,
            wandb_project=config.train.wandb_project,
            config=flatten(config),
        )
        self._progress = Progress(
            first_step, num_steps, self._batch_size, heads=heads, active=first_host
        )
        self._bad_videos = BadVideos(
            workdir, len(source), config.data.max_bad_fraction, jax.process_index()
        )
        self._waiting = None
        self._last = time.monotonic()

    def add(self, step: int, metrics: dict[str, jax.Array], batch: Batch, data_wait_sec: float):
        """Hands over a step that the device may still be computing."""
        self.flush()
        self._waiting = step, metrics, batch, data_wait_sec

    def flush(self):
        """Waits for the step handed over last, checks it and writes it.

        Raises:
            UserError: its loss or gradient is not finite, or too many videos are unusable.
        """
        if self._waiting is None:
            return
        step, metrics, batch, data_wait_sec = self._waiting
        self._waiting = None
        found = {f'train/{name}': float(x) for name, x in jax.device_get(metrics).items()}
        now = time.monotonic()
        step_time, self._last = now - self._last, now
        self._check_finite(step, found, batch)
        for index, error in zip(batch['bad_id'], batch['error'], strict=True):
            if index >= 0:
                self._bad_videos.add(self._source.name(int(index)), error_text(error))
        found |= {
            'perf/step_time_ms': 1e3 * step_time,
            'perf/data_wait_ms': 1e3 * data_wait_sec,
            'perf/clips_per_sec': self._batch_size / step_time,
            'perf/host_rss_gb': host_rss_gb(),
            'data/bad_videos': len(self._bad_videos),
        }
        self.write(step, found)
        self._progress.update(step, found)

    def write(self, step: int, metrics: dict[str, float]):
        """Adds metrics to a step."""
        self._writer.write(step, metrics)
        self._warn(step, metrics)

    def amend(self, step: int, metrics: dict[str, float]):
        """Adds metrics to the step after which the run was interrupted."""
        self._writer.amend(step, metrics)
        self._warn(step, metrics)

    def _warn(self, step: int, metrics: dict[str, float]):
        for warning in self._advice.add(step, metrics):
            if jax.process_index() == 0:
                _log.warning('%s', warning)

    def pause(self):
        """Before a checkpoint and after an evaluation: writes all, and starts the clock anew."""
        self._writer.flush(lasts=True)
        self._progress.pause()
        self._last = time.monotonic()

    def close(self):
        """Closes files and the bar."""
        self._progress.close()
        self._writer.close()

    def _check_finite(self, step: int, metrics: dict[str, float], batch: Batch):
        if math.isfinite(metrics['train/loss']) and math.isfinite(metrics['train/grad_norm']):
            return
        names = [self._source.name(int(i)) for i in batch['video_id']]
        raise UserError(
            f'step {step} is not finite: loss {metrics["train/loss"]}, gradient norm '
            f'{metrics["train/grad_norm"]}, at learning rate {metrics["train/lr"]:.3g}; '
            'nothing of it was saved. Videos of the batch:\n  '
            + '\n  '.join(names)
            + f'\n{_advise_lower_rate(self._workdir, self._config)}'
        )


def _advise_lower_rate(workdir: Path, config: ConfigDict) -> str:
    """The command that trains with a tenth of the learning rate, which needs a new run folder."""
    flags = {
        'config': workdir / 'config.json',
        'workdir': workdir.with_name(f'{workdir.name}-lower'),
        'config.train.learning_rate': f'{config.train.learning_rate / 10:g}',
    }
    if not config.train.clip_norm:
        flags['config.train.clip_norm'] = 1.0
    starts = 'from the start'
    if has_checkpoints(workdir / 'checkpoints'):
        starts = f'from the weights of {workdir}'
        flags['config.init_from'] = workdir
        unset = {'depth_from': '', 'reinit': '()'}  # all comes from the run
        flags |= {f'config.init.{key}': x for key, x in unset.items() if config.init[key]}
    command = shlex.join([f'--{name}={value}' for name, value in flags.items()])
    return (
        f'To train {starts} with a lower learning rate, in another run folder:\n'
        f'  python -m vivit_jax.main {command}'
    )
