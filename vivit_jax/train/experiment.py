"""What a config describes: data, durations and programs, without a run folder."""

import logging
from collections.abc import Iterable, Mapping

import numpy as np
from ml_collections import ConfigDict

from vivit_jax.annotations.dataset import count_classes
from vivit_jax.augment.mirrored_labels import find_directions, mirrored_labels
from vivit_jax.batches.load_dataset import load_dataset
from vivit_jax.batches.loader import check_repeats
from vivit_jax.config import load
from vivit_jax.errors import UserError
from vivit_jax.evaluation.views import check_merge, parse_views
from vivit_jax.heads import LabelNames, PerHead, by_head, map_heads
from vivit_jax.parallel.mesh import check_batch_size, create_mesh
from vivit_jax.parallel.to_device import find_host
from vivit_jax.train.advice import Advice
from vivit_jax.train.freezing import Hold
from vivit_jax.train.losses import class_weights
from vivit_jax.train.programs import Programs
from vivit_jax.train.recipe import create_recipe
from vivit_jax.train.schedule import create_schedule
from vivit_jax.train.weights_and_biases import find_wandb
from vivit_jax.video.depth_range import describe_depths

_log = logging.getLogger(__name__)


class Experiment:
    """The parts that a config describes, all checked. Making one writes and compiles nothing.

    Args:
        config: see `vivit_jax.config.schema`. With a recipe, it is completed.

    Attributes:
        config: the same.
        mesh: all devices.
        dataset: sources of the videos of each split, and the classes.
        train_source: the training split.
        crop: draws the crop of a training clip.
        num_steps: of the training.
        save_every: steps between checkpoints; 0: only at the end.
        eval_every: steps between validations; 0: only at the end.
        programs: model, optimizer and steps.

    Raises:
        UserError: something does not fit; the message says what to do.
    """

    def __init__(self, config: ConfigDict):
        self.config = config
        self.mesh = create_mesh(load.mesh_sizes(config))
        recipe = create_recipe(config)
        if recipe:
            recipe.complete_model()
        else:
            self._check_settings()
        spec = load.preprocessing(config)
        self.dataset = load_dataset(
            config.data,
            seed=config.seed,
            num_classes=config.model.num_classes,
            modality=config.model.modality or 'rgb',
            stretch_depth=spec.stretch_depth,
        )
        if 'train' not in self.dataset.splits:
            raise UserError(
                'no training videos: set data.train_csv, or data.source to a dataset that has a '
                'training split in data.root'
            )
        self.train_source = self.dataset.splits['train']
        if self.train_source.modality != 'rgb' and not spec.depth_range:
            raise UserError(describe_depths(self.train_source.open, len(self.train_source)))
        for head, names in by_head(self.dataset.label_names).items():
            if len(names) < 2 and not config.data.label_separator:
                raise UserError(
                    f'{f"head {head}: " if head else ""}there is only one class, {names[0]!r}, and '
                    'nothing to learn: give videos of a second class'
                )
        if recipe:
            count, splits = len(self.train_source), self.dataset.splits
            _log.info('Settings for %d training videos:', count)
            for line in recipe.complete_settings(count, 'val' in splits, self.dataset.label_names):
                _log.info('  %s', line)
            self._check_settings()

        self.crop = load.random_crop(config, spec)
        steps_per_epoch = load.steps_per_epoch(len(self.train_source), config.train.batch_size)
        self._steps_per_epoch = steps_per_epoch
        self.num_steps = load.steps(config.train, 'num', steps_per_epoch)
        if not self.num_steps:
            raise UserError('set train.num_epochs or train.num_steps')
        warmup_steps = load.steps(config.train, 'warmup', steps_per_epoch, self.num_steps)
        self.save_every = load.steps(config.train, 'checkpoint_every', steps_per_epoch)
        self.eval_every = load.steps(config.eval, 'every', steps_per_epoch)
        self._check_early_stop()
        if config.train.wandb_project:
            find_wandb()

        names = self.dataset.label_names
        self.programs = Programs(
            config,
            self.mesh,
            map_heads(len, names),
            create_schedule(
                config.train.learning_rate,
                warmup_steps,
                self.num_steps,
                [round(epoch * steps_per_epoch) for epoch in config.train.decay_epochs],
                kind=load.schedule_kind(config.train),
            ),
            _mirrored_labels(config.augment, names) if config.augment.flip else None,
            self._class_weights(config.train.class_weight_beta),
            self._hold(warmup_steps),
        )

    def advise(self, measured: Iterable[Mapping[str, float]]) -> Advice:
        """The advice on a training that has measured so much already."""
        chances = [1.0]  # with any number of labels there is no accuracy
        counts = count_classes(self.train_source.videos, self.dataset.label_names)
        for of_head in by_head(counts).values() if not self.programs.is_multi_label else ():
            drawn = of_head[of_head > 0] ** (1 - self.config.data.balance)
            chances.append(drawn.max() / drawn.sum())
        return Advice(
            self.num_steps,
            self._steps_per_epoch,
            self.config.train.batch_size,
            min(chances),
            measured,
        )

    def _check_settings(self):
        """Raises a UserError where a setting is wrong, whatever the data is."""
        config = self.config
        load.check_ranges(config)
        load.random_crop(config, load.preprocessing(config))
        parse_views(config.eval.views)
        check_merge(config.eval.merge)
        train, repeats = config.train, config.augment.repeats
        check_batch_size(train.batch_size, self.mesh, 'train.batch_size', train.accumulate)
        check_repeats(train.batch_size, repeats, find_host(self.mesh).count)

    def _class_weights(self, beta: float) -> PerHead[np.ndarray] | None:
        if not beta:
            return None
        counts = count_classes(self.train_source.videos, self.dataset.label_names)
        return class_weights(counts, beta)

    def _hold(self, warmup_steps: int) -> Hold:
        train = self.config.train
        if bool(train.hold) != bool(train.hold_fraction):
            raise UserError(
                f'train.hold={tuple(train.hold)} and train.hold_fraction={train.hold_fraction} '
                'belong together: set both or none'
            )
        return Hold(train.hold, round(train.hold_fraction * self.num_steps), warmup_steps)

    def _check_early_stop(self):
        """Raises a UserError if an early stop is wanted and can never be."""
        train = self.config.train
        patience, metric = train.early_stop_validations, train.early_stop_metric
        known = ('map' if self.config.data.label_separator else 'acc1', 'loss')
        if metric not in ('acc1', 'map', 'loss') or (patience and metric not in known):
            raise UserError(
                f'train.early_stop_metric={metric!r} must be {known[0]!r} or {known[1]!r}: '
                "validations have 'map' with data.label_separator, and 'acc1' without"
            )
        if patience and 'val' not in self.dataset.splits:
            raise UserError(
                f'train.early_stop_validations={patience} needs a validation split: give '
                'data.val_csv or data.val_fraction, or set it to 0'
            )
        if patience and not self.eval_every:
            raise UserError(
                f'train.early_stop_validations={patience} needs validations during the training: '
                'set eval.every_epochs or eval.every_steps'
            )


def _mirrored_labels(augment: ConfigDict, names: LabelNames) -> PerHead[np.ndarray] | None:
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
