"""Training from a config to a tested checkpoint."""

import contextlib
import logging
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
from vivit_jax.heads import head_names
from vivit_jax.layers.attention_kernels import log_choices
from vivit_jax.model_card import ModelCard
from vivit_jax.parallel.distributed import end_if_process_is_lost
from vivit_jax.parallel.memory import describe_memory, describe_placement
from vivit_jax.parallel.mesh import batch_sharding, platform_of
from vivit_jax.parallel.to_device import find_host, prefetch
from vivit_jax.processes import leave_threads
from vivit_jax.train.checkpoints import Checkpoints, set_damaged_aside
from vivit_jax.train.clock import PartsClock
from vivit_jax.train.descriptions import describe_checkpoints, describe_run
from vivit_jax.train.early_stop import EarlyStop
from vivit_jax.train.experiment import Experiment
from vivit_jax.train.first_state import create_first_state, read_start_variables
from vivit_jax.train.profiling import Profiler
from vivit_jax.train.recorder import Recorder
from vivit_jax.train.run_folder import start_run
from vivit_jax.train.run_lock import hold
from vivit_jax.train.state import TrainState
from vivit_jax.train.stopping import Stop, stop_signals
from vivit_jax.train.watchdog import watch
from vivit_jax.train.writers import read_metrics
from vivit_jax.video.durations import median_duration_sec
from vivit_jax.weights.orbax import BEST_METRICS, LAST, has_checkpoints

_log = logging.getLogger(__name__)


class Trainer:
    """One run: the loop over the experiment of a config, and what the loop writes.

    Making one checks the config and the data; it writes and compiles nothing.

    Args:
        config: see `vivit_jax.config.schema`.
        workdir: the run folder; a run in it goes on.
        began: `time.monotonic()` when the command began; by default now.
        take_over: whether to take the run folder from a training that holds it, see `hold`.
        profile_steps: the first and the last step of which `profile` in the run folder gets a
            trace; None: there is no trace.

    Attributes:
        results: when the run is over, the metrics of its last validation and of the test, such as
            `val/acc1` and `test/acc1@4x3`.

    Raises:
        UserError: something does not fit; the message says what to do.
    """

    def __init__(
        self,
        config: ConfigDict,
        workdir: Path,
        began: float | None = None,
        take_over: bool = False,
        profile_steps: tuple[int, int] | None = None,
    ):
        self._clock = PartsClock(began)
        self._experiment = experiment = Experiment(config)
        self._programs, self._config, self._workdir = experiment.programs, config, workdir
        self._names = experiment.dataset.label_names
        spec = self._programs.spec
        source = experiment.train_source
        typical_sec = median_duration_sec(source.open, len(source))
        self._card = ModelCard(
            self._programs.model_keywords,
            spec,
            self._names,
            typical_sec,
            self._programs.is_multi_label,
        )
        self._evaluator = Evaluator(
            create_forward(self._programs.model, spec),
            experiment.mesh,
            spec,
            config.eval.batch_size,
            load.workers(config),
        )
        self._folder = workdir / 'checkpoints'
        self._take_over, self._lock = take_over, None
        self._profile_steps, self.results = profile_steps, {}
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
        for line in describe_run(self._experiment, self._workdir):
            _log.info('%s', line)
        try:
            with (
                jax.set_mesh(self._experiment.mesh),
                watch(config.train.hang_sec, config.parallel.lost_sec) as self._watchdog,
                end_if_process_is_lost(),
            ):
                first = checkpoints.latest_step()
                step, is_stopped = self._loop(checkpoints)
                checkpoints.wait()
                checkpoints.link()
                named = checkpoints.best_and_last()
        finally:
            checkpoints.close()
        if is_stopped:
            _log.info('Saved step %d; --resume=%s goes on from there', step, self._workdir)
            return self._stop.exit_status
        if step < self._experiment.num_steps:
            _log.info('The training ended at step %d: %s', step, self._early_stop)
        for line in read_metrics(self._workdir):
            if line['step'] == step:
                self.results |= {name: x for name, x in line.items() if name.startswith('val/')}
        tested, metric = '', 'map' if self._programs.is_multi_label else 'acc1'
        if config.eval.test_at_end and not {'val', 'test'} & self._experiment.dataset.splits.keys():
            _log.info(
                'Trained, but not tested: there are no other videos. To test, give data.test_csv '
                'with --mode=evaluate; to choose the best checkpoint, train with data.val_fraction'
            )
        elif config.eval.test_at_end:
            split, metrics = evaluate_checkpoint(
                config, self._workdir, self._workdir / LAST, takes_saved=step == first
            )
            views = config.eval.views
            self.results |= {f'{split}/{name}@{views}': x for name, x in metrics.items()}
            tested = f'{split} {100 * metrics[metric]:.2f} % of {views} views'
            self._check_lock(looks=True)
        title = BEST_METRICS[f'val/{metric}']
        _log.info('%s', describe_checkpoints(self._workdir, named, title, tested))
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
        profiler = Profiler(
            self._workdir / 'profile', self._profile_steps, first, experiment.num_steps
        )
        measured = read_metrics(self._workdir, first)
        recorder = Recorder(
            self._workdir,
            self._config,
            experiment.train_source,
            heads=head_names(self._names),
            advice=experiment.advise(measured),
            first_step=first,
            num_steps=experiment.num_steps,
        )
        train = self._config.train
        self._early_stop = EarlyStop(
            train.early_stop_validations,
            train.early_stop_metric,
            measured,
        )
        if first >= experiment.num_steps or self._early_stop.is_reached:
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
            balance=self._config.data.balance,
            workers=load.workers(self._config),
            host=find_host(experiment.mesh),
        )
        feed = prefetch(
            batches, batch_sharding(experiment.mesh), (*experiment.train_source.kinds, 'label')
        )
        signals = contextlib.ExitStack()
        step, stop = first, False
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
            while step < experiment.num_steps and not (stop or self._early_stop.is_reached):
                step += 1
                profiler.start(step)
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
                with jax.profiler.StepTraceAnnotation('train', step_num=step):
                    state, metrics = train_step(state, on_device)
                recorder.add(step, metrics, batch, data_wait)
                if step == first + 1:
                    jax.block_until_ready(metrics)
                    self._clock.ends('first step')
                    _log.info('First step after %s', self._clock)
                if profiler.is_over(step):
                    recorder.flush()  # waits for the step
                    profiler.stop()
                    recorder.pause()
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
                        self._early_stop.add(step, found)
                    recorder.pause()
                    self._watchdog.alive(f'the checkpoint of step {step}')
                    self._check_lock(looks=True)  # a validation can take long
                    checkpoints.save(state, self._card, found)
        finally:
            signals.close()
            profiler.stop()
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
            self._early_stop.add(step, found)
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


def _is_due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0
