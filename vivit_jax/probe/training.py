"""Trains many heads at once: for every fold and every setting, in one program."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from vivit_jax.probe.losses import cross_entropies
from vivit_jax.probe.scale import Scale


class Setting(NamedTuple):
    """How a head is trained.

    Attributes:
        learning_rate: at the end of the warm-up; half a cosine to 0 follows.
        weight_decay: of AdamW; biases have none.
    """

    learning_rate: float
    weight_decay: float


def train_heads(
    head: nn.Module,
    inputs: np.ndarray,
    targets: np.ndarray,
    weights: np.ndarray,
    settings: Sequence[Setting],
    *,
    scales: Scale | None = None,
    is_multi_label: bool = False,
    epochs: int,
    batch_size: int,
    label_smoothing: float = 0.1,
    seed: int = 0,
    title: str = '',
) -> tuple[dict, np.ndarray]:
    """Trains a head for every row of weights and every setting, on the same batches.

    Args:
        head: maps inputs [b ...] to logits [b classes].
        inputs: float [n ...].
        targets: float [n classes], 1 for each class of an example and 0 for the others.
        weights: float [folds n]: of each example in the loss of each fold; 0 holds it out.
        settings: to try.
        scales: of the inputs of each fold, with a mean and a deviation [folds d]; None: they stay.
        is_multi_label: see `cross_entropies`.
        epochs: passes over the examples.
        batch_size: examples of a step; the last step of an epoch has fewer.
        label_smoothing: part of the target that all answers share: the classes, or yes and no.
        seed: of the first parameters and of the order.
        title: of the progress bar.

    Returns:
        The parameters [folds settings ...], and the logits [folds settings n classes] of all
        examples.
    """
    count, num_folds = len(inputs), len(weights)
    rates = jnp.array([setting.learning_rate for setting in settings])
    decays = jnp.array([setting.weight_decay for setting in settings])
    first = head.init(jax.random.key(seed), jnp.zeros((1, *inputs.shape[1:]), jnp.float32))
    params = jax.tree.map(
        lambda x: jnp.broadcast_to(x, (num_folds, len(settings), *x.shape)), first['params']
    )
    adam = optax.scale_by_adam()
    state = jax.vmap(jax.vmap(adam.init))(params)
    steps_per_epoch = -(-count // batch_size)
    num_steps = epochs * steps_per_epoch
    schedule = optax.warmup_cosine_decay_schedule(0.0, 1.0, max(1, num_steps // 10), num_steps)

    shared = label_smoothing / (2 if is_multi_label else targets.shape[1])

    def loss_of(params: dict, x: jax.Array, y: jax.Array, weights: jax.Array) -> jax.Array:
        logits = head.apply({'params': params}, x)
        y = (1 - label_smoothing) * y + shared
        losses = cross_entropies(logits, y, is_multi_label)
        return (losses * weights).sum() / jnp.maximum(weights.sum(), 1e-6)

    def update(params, state, rate, decay, weights, scale, x, y, part):
        grads = jax.grad(loss_of)(params, x if scale is None else scale(x), y, weights)
        changes, state = adam.update(grads, state)

        def change(p: jax.Array, u: jax.Array) -> jax.Array:
            return p - rate * part * (u + (decay * p if p.ndim > 1 else 0))

        return jax.tree.map(change, params, changes), state

    over_settings = jax.vmap(update, (0, 0, 0, 0, *5 * [None]))
    over_folds = jax.vmap(over_settings, (0, 0, None, None, 0, 0, None, None, None))

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def train_step(params, state, x, y, weights, step):
        x = x.astype(jnp.float32)
        return over_folds(params, state, rates, decays, weights, scales, x, y, schedule(step))

    rng, step = np.random.default_rng(seed), 0
    with tqdm(total=num_steps, desc=title, leave=False, disable=None) as bar:
        for _ in range(epochs):
            order = rng.permutation(count)
            # Batches of one size compile once; the first videos of the order fill the last batch.
            order = np.concatenate([order, order[: -count % batch_size]])[: num_steps * batch_size]
            for start in range(0, len(order), batch_size):
                rows = np.sort(order[start : start + batch_size])
                params, state = train_step(
                    params, state, inputs[rows], targets[rows], weights[:, rows], step
                )
                step += 1
                bar.update()
    return params, apply_heads(head, params, inputs, batch_size, scales)


def apply_heads(
    head: nn.Module,
    params: dict,
    inputs: np.ndarray,
    batch_size: int,
    scales: Scale | None = None,
) -> np.ndarray:
    """Logits [folds settings n classes] of heads that `train_heads` trained."""

    @jax.jit
    def apply(params: dict, x: jax.Array) -> jax.Array:
        def forward(params: dict, scale: Scale | None) -> jax.Array:
            inputs = x.astype(jnp.float32)
            return head.apply({'params': params}, inputs if scale is None else scale(inputs))

        return jax.vmap(jax.vmap(forward, (0, None)))(params, scales)

    parts = [
        np.asarray(apply(params, inputs[start : start + batch_size]))
        for start in range(0, len(inputs), batch_size)
    ]
    return np.concatenate(parts, axis=2)
