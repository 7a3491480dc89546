"""Training from a config to a tested checkpoint."""

import dataclasses
import functools
import logging
import math
import operator
import signal
import time
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from vivit_jax.augment.labels import find_directions, mirrored_labels
from vivit_jax.batches.load_dataset import load_dataset
from vivit_jax.batches.loader import Host, check_repeats, train_batches
from vivit_jax.config import load
from vivit_jax.errors import UserError
from vivit_jax.evaluation import report
from vivit_jax.evaluation.evaluate_checkpoint import evaluate
from vivit_jax.evaluation.evaluator import Evaluator
from vivit_jax.evaluation.views import check_merge, parse_views
from vivit_jax.heads import PerHead, head_names, map_heads
from vivit_jax.layers.attention_kernels import log_choices
from vivit_jax.model_card import ModelCard
from vivit_jax.models.variables import init_variables
from vivit_jax.parallel.mesh import batch_sharding, check_batch_size, create_mesh, platform_of
from vivit_jax.parallel.to_device import prefetch
from vivit_jax.train.checkpoints import Checkpoints
from vivit_jax.train.optimizer import create_schedule
from vivit_jax.train.parameters import find_frozen
from vivit_jax.train.programs import Programs
from vivit_jax.train.recorder import Recorder
from vivit_jax.train.run_folder import start_run
from vivit_jax.train.state import TrainState, start_state
from vivit_jax.train.step import create_forward
from vivit_jax.weights.fitting import fit_statistics
from vivit_jax.weights.load import read_weights
from vivit_jax.weights.orbax import has_checkpoints
from vivit_jax.weights.report import Report
from vivit_jax.weights.start import describe_differences, init_from

_log = logging.getLogger(__name__)

_AGREE_EVERY_STEPS = 10  # how often several hosts ask each other whether to stop


class Trainer:
    """One run: everything that a config makes, and the loop over it.

    Making one checks the config, the data and the run folder, and compiles nothing.

    Args:
        config: see `vivit_jax.config.schema`.
        workdir: the run folder; a run in it goes on.

    Raises:
        UserError: something does not fit; the message says what to do.
    """

    def __init__(self, config: ConfigDict, workdir: Path):
        self.config, self.workdir = config, workdir
        spec, policy = load.preprocessing(config), load.augmentation(config)
        self.crop = load.random_crop(config, spec)
        load.check_ranges(config)
        parse_views(config.eval.views)
        check_merge(config.eval.merge)
        self.mesh = create_mesh()
        check_batch_size(config.train.batch_size, self.mesh, 'train.batch_size')
        check_repeats(config.train.batch_size, policy.repeats, jax.process_count())
        self.videos = load_dataset(config.data, num_classes=config.model.num_classes)
        if 'train' not in self.videos.splits:
            raise UserError(
                'no training videos: set data.train_csv, or data.source to a dataset that has a '
                'training split in data.root'
            )
        self.train_source = self.videos.splits['train']

        steps_per_epoch = max(1, len(self.train_source) // config.train.batch_size)
        self.num_steps = load.steps(config.train, 'num', steps_per_epoch)
        if not self.num_steps:
            raise UserError('set train.num_epochs or train.num_steps')
        warmup_steps = load.steps(config.train, 'warmup', steps_per_epoch)
        self.save_every = load.steps(config.train, 'checkpoint_every', steps_per_epoch)
        self.eval_every = load.steps(config.eval, 'every', steps_per_epoch)

        self.programs = Programs(
            config,
            self.mesh,
            map_heads(len, self.videos.label_names),
            create_schedule(config.train.learning_rate, warmup_steps, self.num_steps),
            self._mirrored_labels() if config.augment.flip else None,
        )
        self.card = ModelCard(self.programs.model_keywords, spec, self.videos.label_names)
        self.evaluator = Evaluator(
            create_forward(self.programs.model, spec),
            self.mesh,
            spec,
            config.eval.batch_size,
            load.workers(config),
        )
        self._folder = workdir / 'checkpoints'
        self._start_variables, report = None, None
        if config.init_from and not has_checkpoints(self._folder):
            self._start_variables, report = self._init_from()
        start_run(workdir, config, self.videos.label_names, report)
        self._stop_signal = 0

    def run(self) -> int:
        """Trains to the end, or to Ctrl-C, from the newest checkpoint or from the start.

        Returns:
            An exit status: 0, or 128 and the number of the signal that stopped it.
        """
        self._log_header()
        checkpoints = Checkpoints(
            self._folder, self.config.train.keep_last, self.config.train.keep_best
        )
        handlers = {
            number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            with jax.set_mesh(self.mesh):
                state = self._start(checkpoints)
                state = self._loop(state, checkpoints)
            checkpoints.wait()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            checkpoints.close()
        if int(state.step) < self.num_steps:
            _log.info('Saved step %d; the same command goes on from there', state.step)
            return 128 + self._stop_signal
        if self.config.eval.test_at_end:
            evaluate(self.config, self.workdir, self._folder / str(state.step))
        return 0

    def _mirrored_labels(self) -> PerHead[np.ndarray] | None:
        augment, names = self.config.augment, self.videos.label_names
        directions = find_directions(names)
        if directions and not augment.flip_swaps:
            _log.warning(
                'augment.flip=%s mirrors clips of %s, which then has the wrong label: set '
                'augment.flip=0, or augment.flip_swaps to the words that change places, such as '
                "(('left','right'),)",
                augment.flip,
                ', '.join(directions[:3]),
            )
        return mirrored_labels(names, augment.flip_swaps)

    def _init_from(self) -> tuple[dict, Report]:
        """Variables that start from `init_from`, on this host, and what became of each."""
        weights, config = read_weights(self.config.init_from), self.config
        _log.info('Starting from %s: %s', config.init_from, weights.kind)
        for line in describe_differences(self.card, weights):
            _log.warning('%s', line)
        key = jax.random.key(config.seed)
        model, spec = self.programs.model, self.programs.spec
        fresh = jax.jit(lambda: init_variables(key, model, spec.clip_shape))()
        params, report = init_from(
            model,
            fresh['params'],
            weights,
            clip_shape=spec.clip_shape,
            reinit=config.init.reinit,
            tubelet_init=config.init.tubelet,
            temporal_attention_init=config.init.temporal_attention,
        )
        _log.info('%s', report)
        statistics = fit_statistics(fresh['batch_stats'], weights.batch_stats)
        return jax.device_get({'params': params, 'batch_stats': statistics}), report

    def _start(self, checkpoints: Checkpoints) -> TrainState:
        step = checkpoints.latest_step()
        if step is not None:
            _log.info('Going on from step %d of %s', step, self.workdir)
            return checkpoints.restore(step, self.programs.abstract_state)
        sharding = self.programs.state_sharding
        if self._start_variables is None:
            return jax.jit(self.programs.create_state, out_shardings=sharding)()
        variables, self._start_variables = self._start_variables, None
        variables = jax.tree.map(
            lambda x, s: jax.make_array_from_callback(x.shape, s, lambda i: np.array(x[i])),
            variables,
            {'params': sharding.params, 'batch_stats': sharding.batch_stats},
        )
        start = functools.partial(
            start_state,
            optimizer=self.programs.optimizer,
            has_ema=bool(self.config.train.ema_decay),
        )
        return jax.jit(start, out_shardings=sharding)(variables)

    def _loop(self, state, checkpoints: Checkpoints):
        """Trains from `state`; returns the last one, which is saved."""
        first, mesh, batch_size = int(state.step), self.mesh, self.config.train.batch_size
        platform = platform_of(mesh)
        train_step = self.programs.train_step()
        batches = train_batches(
            self.train_source,
            self.crop,
            batch_size=batch_size,
            seed=self.config.seed,
            start_step=first,
            repeats=self.programs.policy.repeats,
            workers=load.workers(self.config),
            host=Host(jax.process_index(), jax.process_count()),
        )
        recorder = Recorder(
            self.workdir,
            self.config,
            self.train_source,
            heads=head_names(self.videos.label_names),
            first_step=first,
            num_steps=self.num_steps,
        )
        feed = prefetch(batches, batch_sharding(mesh), ('rgb', 'label'))
        try:
            for step in range(first + 1, self.num_steps + 1):
                asked = time.monotonic()
                batch, on_device = next(feed)
                data_wait = time.monotonic() - asked
                with log_choices(platform, 'training step'):
                    state, metrics = train_step(state, on_device)
                recorder.add(step, metrics, batch, data_wait)
                stop, is_last = self._should_stop(step), step == self.num_steps
                validates = _is_due(step, self.eval_every) or is_last
                if stop or validates or _is_due(step, self.save_every):
                    recorder.flush()
                    found = {}
                    if validates and not stop:
                        found = self._validate(state)
                        recorder.write(step, found)
                    recorder.pause()
                    checkpoints.save(state, self.card, found)
                if stop:
                    break
        finally:
            recorder.close()
            feed.close()
            batches.close()
        return state

    def _validate(self, state) -> dict[str, float]:
        source = self.videos.splits.get('val')
        if source is None:
            return {}
        # Of several hosts none may leave alone.
        alone = jax.process_count() == 1
        results = self.evaluator(
            state.eval_variables,
            source,
            views=(1, 1),
            stop=lambda: alone and bool(self._stop_signal),
        )
        if results is None:
            return {}
        metrics = results.metrics(self.config.eval.merge)
        _log.info('step %d: %s', state.step, report.describe(results, 'val', '1x1', metrics))
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
        programs, config = self.programs, self.config
        params = programs.abstract_state.params
        sizes = jax.tree.map(lambda x: math.prod(x.shape) / 1e6, params)
        is_frozen = find_frozen(params, config.train.freeze)
        frozen = sum(jax.tree.leaves(jax.tree.map(operator.mul, sizes, is_frozen)))
        _log.info(
            'Model %s, %.2f M parameters%s, %s; %s',
            config.model.name,
            sum(jax.tree.leaves(sizes)),
            f', of which {frozen:.2f} M frozen' if frozen else '',
            programs.model.dtype,
            ', '.join(f'{k}={v}' for k, v in dataclasses.asdict(programs.spec).items()),
        )
        _log.info(
            'Data: %s; %s classes; %s',
            ', '.join(f'{len(rows)} {name}' for name, rows in self.videos.splits.items()),
            map_heads(len, self.videos.label_names),
            ', '.join(f'{k}={v}' for k, v in dataclasses.asdict(programs.policy).items()),
        )
        _log.info(
            '%d steps of %d clips on %d %s device(s), %d process(es); run folder %s',
            self.num_steps,
            config.train.batch_size,
            jax.device_count(),
            jax.default_backend(),
            jax.process_count(),
            self.workdir,
        )


def _is_due(step: int, every: int) -> bool:
    return bool(every) and step % every == 0
