"""Optimizers and learning-rate schedules."""

import operator
from collections.abc import Sequence

import jax
import optax
from ml_collections import ConfigDict

from vivit_jax.errors import UserError
from vivit_jax.train.freezing import leave_frozen
from vivit_jax.train.layer_decay import layer_scales


def create_schedule(
    learning_rate: float, warmup_steps: int, num_steps: int, decay_steps: Sequence[int] = ()
) -> optax.Schedule:
    """The learning rate by step.

    Args:
        learning_rate: at the end of the warm-up.
        warmup_steps: of a linear rise from 0.
        num_steps: of the training.
        decay_steps: steps from which on the learning rate is a tenth of what it was; without any,
            half a cosine to 0 follows the warm-up.

    Raises:
        UserError: the warm-up does not end before the training, and before the first decay.
    """
    if warmup_steps >= num_steps:
        raise UserError(
            f'a warm-up of {warmup_steps} steps does not fit into {num_steps} steps: make it a '
            'part of the training, as with --config.train.warmup_fraction=0.1'
        )
    if decay_steps:
        if warmup_steps >= min(decay_steps):
            raise UserError(
                f'the learning rate decays at step {min(decay_steps)}, within a warm-up of '
                f'{warmup_steps} steps: choose later train.decay_epochs, or a shorter warm-up'
            )
        tenths = {step - warmup_steps: 0.1 for step in decay_steps}
        return optax.join_schedules(
            [
                optax.linear_schedule(0.0, learning_rate, warmup_steps),
                optax.piecewise_constant_schedule(learning_rate, tenths),
            ],
            [warmup_steps],
        )
    return optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup_steps, num_steps)


def create_optimizer(
    config: ConfigDict, schedule: optax.Schedule, *, is_fusion: bool = False
) -> optax.GradientTransformation:
    """The optimizer of the section `train`: gradient clipping, then SGD or AdamW.

    Weight decay acts on kernels only: not on biases, norms, class tokens and positions.

    Args:
        config: the section.
        schedule: learning rate by step.
        is_fusion: whether the model is a `Fusion`, whose models for RGB and for depth have their
            gradients clipped each by its own norm.

    Raises:
        UserError: unknown optimizer, or type of its moments.
    """
    if config.moment_dtype not in ('float32', 'bfloat16'):
        raise UserError(
            f"train.moment_dtype={config.moment_dtype!r} must be 'float32' or 'bfloat16'"
        )
    if config.optimizer == 'sgd':
        update = optax.chain(
            optax.add_decayed_weights(config.weight_decay, mask=_kernels),
            optax.sgd(schedule, momentum=config.momentum, accumulator_dtype=config.moment_dtype),
        )
    elif config.optimizer == 'adamw':
        update = optax.adamw(
            schedule,
            b1=config.momentum,
            b2=config.adam_b2,
            mu_dtype=config.moment_dtype,
            weight_decay=config.weight_decay,
            mask=_kernels,
        )
    else:
        raise UserError(f"train.optimizer={config.optimizer!r} must be 'sgd' or 'adamw'")
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    clip = _by_stream(clip) if is_fusion else clip

    def scale_by_layer(updates: dict, _) -> dict:
        return jax.tree.map(operator.mul, updates, layer_scales(updates, config.layer_decay))

    return optax.chain(
        leave_frozen(optax.chain(clip, update), config.freeze), optax.stateless(scale_by_layer)
    )


def _by_stream(stateless: optax.GradientTransformation) -> optax.GradientTransformation:
    """A transformation that has no state, of the gradients of each stream of a `Fusion`."""

    def update(updates: dict, _) -> dict:
        return {name: stateless.update(x, optax.EmptyState())[0] for name, x in updates.items()}

    return optax.stateless(update)


def _kernels(params: dict) -> dict:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == 'kernel', params)
