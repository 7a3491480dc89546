"""Optimizers and learning-rate schedules."""

import operator

import jax
import optax
from ml_collections import ConfigDict

from vivit_jax.errors import UserError
from vivit_jax.train.freezing import leave_frozen
from vivit_jax.train.layer_decay import layer_scales


def create_schedule(learning_rate: float, warmup_steps: int, num_steps: int) -> optax.Schedule:
    """Linear from 0 to `learning_rate` in `warmup_steps`, then half a cosine to 0."""
    if warmup_steps >= num_steps:
        raise UserError(
            f'a warm-up of {warmup_steps} steps does not fit into {num_steps} steps: make it a '
            'part of the training, as with --config.train.warmup_fraction=0.1'
        )
    return optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup_steps, num_steps)


def create_optimizer(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    """The optimizer of the section `train`: gradient clipping, then SGD or AdamW.

    Weight decay acts on kernels only: not on biases, norms, class tokens and positions.

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

    def scale_by_layer(updates: dict, _) -> dict:
        return jax.tree.map(operator.mul, updates, layer_scales(updates, config.layer_decay))

    return optax.chain(
        leave_frozen(optax.chain(clip, update), config.freeze), optax.stateless(scale_by_layer)
    )


def _kernels(params: dict) -> dict:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == 'kernel', params)
