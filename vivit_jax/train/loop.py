"""Training from a config to a tested checkpoint."""

import dataclasses
import logging
import math
import operator
import signal
import time
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from vivit_jax.batches.loader import Host, train_batches
from vivit_jax.config import load
from vivit_jax.evaluation.evaluate_checkpoint import evaluate_checkpoint
from vivit_jax.evaluation.evaluator import Evaluator
from vivit_jax.evaluation.forward import create_forward
from vivit_jax.evaluation.results import describe_results
from vivit_jax.heads import head_names, map_heads
from vivit_jax.layers.attention_kernels import log_choices
from vivit_jax.model_card import ModelCard
from vivit_jax.parallel.mesh import batch_sharding, platform_of
from vivit_jax.parallel.to_device import prefetch
from vivit_jax.train.checkpoints import Checkpoints
from vivit_jax.train.experiment import Experiment
from vivit_jax.train.first_state import create_first_state, read_start_variables
from vivit_jax.train.freezing import find_frozen
from vivit_jax.train.recorder import Recorder
from vivit_jax.train.run_folder import start_run
from vivit_jax.train.state import TrainState
from vivit_jax.weights.orbax import has_checkpoints

_log = logging.getLogger(__name__)

_AGREE_EVERY_STEPS = 10  # how often several hosts ask each other whether to stop


class Trainer:
    """One run: the loop over the experiment of a config, and what the loop writes.

    Making one checks the config and the data; it writes and compiles nothing.

    Args:
        config: see `vivit_jax.config.schema`.
        workdir: the run folder; a run in it goes on.

    Raises:
        UserError: something does not fit; the message says what to do.
    """

    def __init__(self, config: ConfigDict, workdir: Path):
        self._experiment = experiment = Experiment(config)
        self._programs, self._config, self._workdir = experiment.programs, config, workdir
        self._names = experiment.dataset.label_names
        spec = self._programs.spec
        self._card = ModelCard(self._programs.model_keywords, spec, self._names)
        self._evaluator = Evaluator(
            create_forward(self._programs.model, spec),
            experiment.mesh,
            spec,
            config.eval.batch_size,
            load.workers(config),
        )
        self._folder = workdir / 'checkpoints'
        self._stop_signal = 0

    def run(self) -> int:
        """Trains to the end, or to Ctrl-C, from the newest checkpoint or from the start.

        Returns:
            An exit status: 0, or 128 and the number of the signal that stopped it.

        Raises:
            UserError: the run folder is of another config, or the weights to start from do not
                fit.
        """
        variables, report = None, None
        if self._config.init_from and not has_checkpoints(self._folder):
            variables, report = read_start_variables(self._programs, self._card)
        start_run(self._workdir, self._config, self._names, report)
        self._log_header()
        checkpoints = Checkpoints(
            self._folder, self._config.train.keep_last, self._config.train.keep_best
        )
        handlers = {
            number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            with jax.set_mesh(self._experiment.mesh):
                state = self._restore(checkpoints) or create_first_state(self._programs, variables)
                del variables  # a copy of the parameters
                state = self._loop(state, checkpoints)
            checkpoints.wait()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            checkpoints.close()
        if int(state.step) < self._experiment.num_steps:
            _log.info('Saved step %d; the same command goes on from there', state.step)
            return 128 + self._stop_signal
        if self._config.eval.test_at_end:
            evaluate_checkpoint(self._config, self._workdir, self._folder / str(state.step))
        return 0

    def _restore(self, checkpoints: Checkpoints) -> TrainState | None:
        """The state of the newest checkpoint, if there is one."""
        step = checkpoints.latest_step()
        if step is None:
            return None
        _log.info('Going on from step %d of %s', step, self._workdir)
        return checkpoints.restore(step, self._programs.abstract_state)

    def _loop(self, state, checkpoints: Checkpoints):
        """Trains from `state`; returns the last one, which is saved."""
        experiment = self._experiment
        first, platform = int(state.step), platform_of(experiment.mesh)
        train_step = self._programs.train_step()
        batches = train_batches(
            experiment.train_source,
            experiment.crop,
            batch_size=self._config.train.batch_size,
            seed=self._config.seed,
            start_step=first,
            repeats=self._programs.policy.repeats,
            workers=load.workers(self._config),
            host=Host(jax.process_index(), jax.process_count()),
        )
        recorder = Recorder(
            self._workdir,
            self._config,
            experiment.train_source,
            heads=head_names(self._names),
            first_step=first,
            num_steps=experiment.num_steps,
        )
        feed = prefetch(batches, batch_sharding(experiment.mesh), ('rgb', 'label'))
        try:
            for step in range(first + 1, experiment.num_steps + 1):
                asked = time.monotonic()
                batch, on_device = next(feed)
                data_wait = time.monotonic() - asked
                with log_choices(platform, 'training step'):
                    state, metrics = train_step(state, on_device)
                recorder.add(step, metrics, batch, data_wait)
                stop, is_last = self._should_stop(step), step == experiment.num_steps
                validates = _is_due(step, experiment.eval_every) or is_last
                if stop or validates or _is_due(step, experiment.save_every):
                    recorder.flush()
                    found = {}
                    if validates and not stop:
                        found = self._validate(state)
                        recorder.write(step, found)
                    recorder.pause()
                    checkpoints.save(state, self._card, found)
                if stop:
                    break
        finally:
            recorder.close()
            feed.close()
            batches.close()
        return state

    def _validate(self, state) -> dict[str, float]:
        source = self._experiment.dataset.splits.get('val')
        if source is None:
            return {}
        # Of several hosts none may leave alone.
        alone = jax.process_count() == 1
        results = self._evaluator(
            state.eval_variables,
            source,
            views=(1, 1),
            stop=lambda: alone and bool(self._stop_signal),
        )
        if results is None:
            return {}
        metrics = results.metrics(self._config.eval.merge)
        _log.info('step %d: %s', state.step, describe_results(results, 'val', '1x1', metrics))
        return {f'val/{name}': value for name, value in metrics.items()}

    def _stop(self, number: int, _):
        if self._stop_signal:
            raise KeyboardInterrupt
        self._stop_signal = number
        _log.info('Stopping after this step, with a checkpoint; once more to stop at once')

    def _should_stop(self, step: int) -> bool:
        """Whether to stop now, the same on every host."""
        if jax.process_count() == 1:
            return bool(self._stop_signal)
        if step % _AGREE_EVERY_STEPS:
            return False
        from jax.experimental import multihost_utils

        return bool(multihost_utils.process_allgather(np.bool_(self._stop_signal)).any())

    def _log_header(self):
        programs, config = self._programs, self._config
        params = programs.abstract_state.params
        sizes = jax.tree.map(lambda x: math.prod(x.shape) / 1e6, params)
        is_frozen = find_frozen(params, config.train.freeze)
        frozen = sum(jax.tree.leaves(jax.tree.map(operator.mul, sizes, is_frozen)))
        _log.info(
            'Model %s, %.2f M parameters%s, %s; %s',
            config.model.name,
            sum(jax.tree.leaves(sizes)),
            f', of which {frozen:.2f} M frozen' if frozen else '',
            programs.model.spec.dtype,
            ', '.join(f'{k}={v}' for k, v in dataclasses.asdict(programs.spec).items()),
        )
        _log.info(
            'Data: %s; %s classes; %s',
            ', '.join(
                f'{len(rows)} {name}' for name, rows in self._experiment.dataset.splits.items()
            ),
            map_heads(len, self._names),
            ', '.join(f'{k}={v}' for k, v in dataclasses.asdict(programs.policy).items()),
        )
        _log.info(
            '%d steps of %d clips on %d %s device(s), %d process(es); run folder %s',
            self._experiment.num_steps,
            config.train.batch_size,
            jax.device_count(),
            jax.default_backend(),
            jax.process_count(),
            self._workdir,
        )


def _is_due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0
