"""Learning rates by step."""

from collections.abc import Sequence

import optax

from vivit_jax.errors import UserError


def create_schedule(
    learning_rate: float,
    warmup_steps: int,
    num_steps: int,
    decay_steps: Sequence[int] = (),
    *,
    kind: str = 'cosine',
) -> optax.Schedule:
    """The learning rate by step: a linear rise from 0, and what follows it.

    Args:
        learning_rate: at the end of the warm-up.
        warmup_steps: of the rise.
        num_steps: of the training.
        decay_steps: of the kind 'step': from each of these steps on, the learning rate is a tenth
            of what it was.
        kind: 'cosine' (half a cosine to 0), 'linear' (to 0), 'step' or 'constant', see
            `vivit_jax.config.load.schedule_kind`.

    Raises:
        UserError: the warm-up does not end before the training, and before the first decay.
    """
    if warmup_steps >= num_steps:
        raise UserError(
            f'a warm-up of {warmup_steps} steps does not fit into {num_steps} steps: make it a '
            'part of the training, as with --config.train.warmup_fraction=0.1'
        )
    if kind == 'cosine':
        return optax.warmup_cosine_decay_schedule(0.0, learning_rate, warmup_steps, num_steps)
    if kind == 'linear':
        after = optax.linear_schedule(learning_rate, 0.0, num_steps - warmup_steps)
    elif kind == 'constant':
        after = optax.constant_schedule(learning_rate)
    else:
        if warmup_steps >= min(decay_steps):
            raise UserError(
                f'the learning rate decays at step {min(decay_steps)}, within a warm-up of '
                f'{warmup_steps} steps: choose later train.decay_epochs, or a shorter warm-up'
            )
        tenths = {step - warmup_steps: 0.1 for step in decay_steps}
        after = optax.piecewise_constant_schedule(learning_rate, tenths)
    rise = optax.linear_schedule(0.0, learning_rate, warmup_steps)
    return optax.join_schedules([rise, after], [warmup_steps])
