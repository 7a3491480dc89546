"""Training from a config to a tested checkpoint."""

import contextlib
import dataclasses
import logging
import math
import operator
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
from jax.stages import Compiled
from ml_collections import ConfigDict

from vivit_jax import terminal
from vivit_jax.batches.loader import train_batches
from vivit_jax.batches.supervised import DecodingError
from vivit_jax.config import load
from vivit_jax.errors import writing
from vivit_jax.evaluation.evaluate_checkpoint import evaluate_checkpoint
from vivit_jax.evaluation.evaluator import Evaluator
from vivit_jax.evaluation.forward import create_forward
from vivit_jax.evaluation.results import describe_results
from vivit_jax.heads import head_names, map_heads
from vivit_jax.layers.attention_kernels import log_choices
from vivit_jax.model_card import ModelCard
from vivit_jax.parallel.distributed import end_if_process_is_lost
from vivit_jax.parallel.memory import describe_memory, describe_placement
from vivit_jax.parallel.mesh import batch_sharding, platform_of
from vivit_jax.parallel.to_device import find_host, prefetch
from vivit_jax.processes import leave_threads
from vivit_jax.train.checkpoints import Checkpoints, set_damaged_aside
from vivit_jax.train.clock import PartsClock
from vivit_jax.train.experiment import Experiment
from vivit_jax.train.first_state import create_first_state, read_start_variables
from vivit_jax.train.freezing import find_frozen
from vivit_jax.train.recorder import Recorder
from vivit_jax.train.run_folder import start_run
from vivit_jax.train.run_lock import hold
from vivit_jax.train.state import TrainState
from vivit_jax.train.stopping import Stop, stop_signals
from vivit_jax.train.watchdog import watch
from vivit_jax.video.durations import median_duration_sec
from vivit_jax.weights.orbax import BEST, LAST, has_checkpoints

_log = logging.getLogger(__name__)


class Trainer:
    """One run: the loop over the experiment of a config, and what the loop writes.

    Making one checks the config and the data; it writes and compiles nothing.

    Args:
        config: see `vivit_jax.config.schema`.
        workdir: the run folder; a run in it goes on.
        began: `time.monotonic()` when the command began; by default now.
        take_over: whether to take the run folder from a training that holds it, see `hold`.

    Raises:
        UserError: something does not fit; the message says what to do.
    """

    def __init__(
        self,
        config: ConfigDict,
        workdir: Path,
        began: float | None = None,
        take_over: bool = False,
    ):
        self._clock = PartsClock(began)
        self._experiment = experiment = Experiment(config)
        self._programs, self._config, self._workdir = experiment.programs, config, workdir
        self._names = experiment.dataset.label_names
        spec = self._programs.spec
        source = experiment.train_source
        typical_sec = median_duration_sec(source.open, len(source))
        self._card = ModelCard(self._programs.model_keywords, spec, self._names, typical_sec)
        self._evaluator = Evaluator(
            create_forward(self._programs.model, spec),
            experiment.mesh,
            spec,
            config.eval.batch_size,
            load.workers(config),
        )
        self._folder = workdir / 'checkpoints'
        self._take_over, self._lock = take_over, None
        self._stop = Stop()
        self._start_variables = None
        if 'val' in experiment.dataset.splits and experiment.eval_every >= experiment.num_steps:
            _log.info(
                'The training is too short for eval.every_epochs or eval.every_steps: there is one '
                'validation, at its end, and no earlier checkpoint can be the best'
            )
        self._clock.ends('imports and data')

    def run(self) -> int:
        """Trains to the end, or to Ctrl-C, from the newest checkpoint or from the start.

        Returns:
            An exit status: 0, or 128 and the number of the signal that stopped it.

        Raises:
            UserError: the run folder is of another config or in use, or the weights to start from
                do not fit.
        """
        try:
            if jax.process_index() == 0:
                with hold(self._workdir, self._take_over) as self._lock:
                    return self._run()
            return self._run()
        except Exception:
            if jax.process_count() > 1:  # JAX would wait for the others, and they for this one
                leave_threads()
            raise

    def _check_lock(self, looks: bool):
        """Raises a UserError if the run folder is lost, after a look at it or since the last."""
        if self._lock and looks:
            self._lock.look()
        if self._lock:
            self._lock.check()

    def _run(self) -> int:
        config, report = self._config, None
        set_damaged_aside(self._folder)
        if config.init_from and not has_checkpoints(self._folder):
            self._start_variables, report = read_start_variables(self._programs, self._card)
        with writing(self._workdir):
            start_run(self._workdir, config, self._experiment.dataset, report)
            if jax.process_index() == 0:
                terminal.log_to_file(self._workdir / 'log.txt')
            checkpoints = Checkpoints(self._folder, config.train.keep_last, config.train.keep_best)
        self._log_header()
        try:
            with (
                jax.set_mesh(self._experiment.mesh),
                watch(config.train.hang_sec, config.parallel.lost_sec) as self._watchdog,
                end_if_process_is_lost(),
            ):
                step, is_stopped = self._loop(checkpoints)
                checkpoints.wait()
                checkpoints.link()
                named = checkpoints.best_and_last()
        finally:
            checkpoints.close()
        if is_stopped:
            _log.info('Saved step %d; --resume=%s goes on from there', step, self._workdir)
            return self._stop.exit_status
        tested = ''
        if config.eval.test_at_end and not {'val', 'test'} & self._experiment.dataset.splits.keys():
            _log.info(
                'Trained, but not tested: there are no other videos. To test, give data.test_csv '
                'with --mode=evaluate; to choose the best checkpoint, train with data.val_fraction'
            )
        elif config.eval.test_at_end:
            split, metrics = evaluate_checkpoint(config, self._workdir, self._workdir / LAST)
            tested = f'{split} {100 * metrics["acc1"]:.2f} % of {config.eval.views} views'
            self._check_lock(looks=True)
        _log.info('%s', _describe_checkpoints(self._workdir, named, tested))
        return 0

    def _compile(self) -> Compiled:
        """Compiles the training step, and says what memory it needs."""
        programs, mesh = self._programs, self._experiment.mesh
        state = programs.abstract_state
        _log.info('Compiling the training step …')
        batch = programs.abstract_batch(self._config.train.batch_size)
        with log_choices(platform_of(mesh), 'training step'):
            lowered = programs.train_step().lower(state, batch)
        compiled = lowered.compile()
        _log.info('%s', describe_placement(state.params, mesh))
        _log.info('%s', describe_memory(programs.plan_training(compiled, batch)))
        return compiled

    def _first_state(self, checkpoints: Checkpoints) -> TrainState:
        """The state of the newest checkpoint, or else the state before the first step."""
        step = checkpoints.latest_step()
        if step is None:
            variables, self._start_variables = self._start_variables, None  # frees a copy
            return create_first_state(self._programs, variables)
        _log.info('Going on from step %d of %s', step, self._workdir)
        return checkpoints.restore(step, self._programs.abstract_state)

    def _loop(self, checkpoints: Checkpoints) -> tuple[int, bool]:
        """Trains from the newest checkpoint, or from the start.

        Returns:
            The step of the newest checkpoint, and whether the run was asked to stop there.
        """
        experiment = self._experiment
        first = checkpoints.latest_step() or 0
        recorder = Recorder(
            self._workdir,
            self._config,
            experiment.train_source,
            heads=head_names(self._names),
            first_step=first,
            num_steps=experiment.num_steps,
        )
        if first >= experiment.num_steps:
            _log.info('All %d steps are done; a larger train.num_epochs adds more', first)
            with contextlib.closing(recorder):
                return first, not self._make_up_validation(first, None, checkpoints, recorder)
        batches = train_batches(
            experiment.train_source,
            experiment.crop,
            batch_size=self._config.train.batch_size,
            seed=self._config.seed,
            start_step=first,
            repeats=self._programs.policy.repeats,
            workers=load.workers(self._config),
            host=find_host(experiment.mesh),
        )
        feed = prefetch(
            batches, batch_sharding(experiment.mesh), (*experiment.train_source.kinds, 'label')
        )
        signals = contextlib.ExitStack()
        try:
            with ThreadPoolExecutor(1) as pool:  # decodes while the step is compiled
                first_batch = pool.submit(next, feed)
                train_step = self._compile()
                self._clock.ends('compilation')
                state = self._first_state(checkpoints)
                self._clock.ends('parameters')
            signals.enter_context(stop_signals(self._stop))  # before, there is nothing to save
            if first and not self._make_up_validation(first, state, checkpoints, recorder):
                return first, True
            for step in range(first + 1, experiment.num_steps + 1):
                self._watchdog.alive(f'decoding for step {step}')
                asked = time.monotonic()
                try:
                    batch, on_device = next(feed) if step > first + 1 else first_batch.result()
                except DecodingError:
                    if step > first + 1 and jax.process_count() == 1:
                        recorder.flush()
                        checkpoints.save(state, self._card, {})
                    raise
                data_wait = time.monotonic() - asked
                # In the first step processes wait for those that still compile.
                self._watchdog.alive(f'step {step}', waits=step > first + 1)
                state, metrics = train_step(state, on_device)
                recorder.add(step, metrics, batch, data_wait)
                if step == first + 1:
                    jax.block_until_ready(metrics)
                    self._clock.ends('first step')
                    _log.info('First step after %s', self._clock)
                stop, is_last = self._stop.reached(step), step == experiment.num_steps
                validates = _is_due(step, experiment.eval_every) or is_last
                saves = stop or validates or _is_due(step, experiment.save_every)
                self._check_lock(looks=saves)
                if saves:
                    recorder.flush()
                    found = {}
                    if validates and not stop:
                        found = self._validate(step, state)
                        stop, found = found is None, found or {}
                        recorder.write(step, found)
                    recorder.pause()
                    self._watchdog.alive(f'the checkpoint of step {step}')
                    self._check_lock(looks=True)  # a validation can take long
                    checkpoints.save(state, self._card, found)
                if stop:
                    break
        finally:
            signals.close()
            recorder.close()
            feed.close()
            batches.close()
        return step, stop

    def _make_up_validation(
        self,
        step: int,
        state: TrainState | None,
        checkpoints: Checkpoints,
        recorder: Recorder,
    ) -> bool:
        """Validates the newest checkpoint, if the run was stopped before it could.

        Args:
            step: of the checkpoint.
            state: its state, if it is in memory.
            checkpoints: of the run.
            recorder: of the run.

        Returns:
            False if the run was stopped once more.
        """
        is_due = _is_due(step, self._experiment.eval_every) or step == self._experiment.num_steps
        has_split = 'val' in self._experiment.dataset.splits
        if not is_due or not has_split or checkpoints.is_validated(step):
            return True
        _log.info('Step %d was not validated before the run stopped', step)
        found = self._validate(step, state or self._first_state(checkpoints))
        if found:
            recorder.amend(step, found)
            checkpoints.add_metrics(step, found)
        return found is not None

    def _validate(self, step: int, state: TrainState) -> dict[str, float] | None:
        """Metrics of the validation split, or none without one; None if asked to stop."""
        source = self._experiment.dataset.splits.get('val')
        if source is None:
            return {}

        def stop() -> bool:
            self._watchdog.alive(f'validation after step {step}')
            return self._stop.at_once

        results = self._evaluator(state.eval_variables, source, views=(1, 1), stop=stop)
        if results is None:
            return None
        metrics = results.metrics(self._config.eval.merge)
        _log.info('step %d: %s', step, describe_results(results, 'val', '1x1', metrics))
        return {f'val/{name}': value for name, value in metrics.items()}

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


def _describe_checkpoints(
    workdir: Path, named: dict[str, tuple[int, float | None]], tested: str
) -> str:
    """Which checkpoint is the best and which the last, and what each scored, in a line."""

    def scores(name: str) -> str:
        step, accuracy = named[name]
        validated = '' if accuracy is None else f'val {100 * accuracy:.2f} % of 1x1 views'
        found = ', '.join(filter(None, [validated, tested if name == LAST else '']))
        return f'step {step}' + (f' (top-1: {found})' if found else '')

    if named[BEST][0] == named[LAST][0]:
        found = f'{workdir / BEST} and {workdir / LAST} are {scores(LAST)}'
    else:
        found = f'{workdir / BEST} is {scores(BEST)}, {workdir / LAST} is {scores(LAST)}'
    return f'{found}. python -m vivit_jax.predict --checkpoint={workdir} VIDEO takes the best'


def _is_due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0
