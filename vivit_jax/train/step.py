"""One update of the parameters, and one forward pass."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from vivit_jax.augment.policy import Augmentation, augment, normalize, to_unit_range
from vivit_jax.data.preprocessing import Preprocessing
from vivit_jax.models.outputs import ModelOutput
from vivit_jax.train.losses import cross_entropy
from vivit_jax.train.state import TrainState

Metrics = dict[str, jax.Array]


def create_train_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule,
    spec: Preprocessing,
    policy: Augmentation,
    *,
    label_smoothing: float,
    seed: int,
) -> Callable[[TrainState, dict[str, jax.Array]], tuple[TrainState, Metrics]]:
    """Makes the function (state, batch) -> (state, metrics).

    It is pure: what is random follows from `seed` and the step. A batch holds `rgb` uint8
    [b t h w 3] and `label` int32 [b]; the metrics are scalars: loss, acc1, lr and grad_norm
    (before clipping).
    """

    def train_step(state: TrainState, batch: dict[str, jax.Array]) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        augment_key, dropout_key = jax.random.split(key)
        clip = normalize(augment(augment_key, batch['rgb'], policy), spec)

        def loss_fn(params: dict) -> tuple[jax.Array, jax.Array]:
            rngs = {'dropout': dropout_key}
            logits = model.apply({'params': params}, clip, train=True, rngs=rngs).logits
            loss = cross_entropy(logits, batch['label'], label_smoothing=label_smoothing)
            return loss, logits

        (loss, logits), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {
            'loss': loss,
            'acc1': jnp.mean(logits.argmax(-1) == batch['label']),
            'lr': schedule(state.step),
            'grad_norm': optax.tree.norm(grads),
        }
        return TrainState(state.step + 1, params, opt_state), metrics

    return train_step


def create_forward(
    model: nn.Module, spec: Preprocessing
) -> Callable[[dict, jax.Array], ModelOutput]:
    """Makes the function (variables, rgb) -> output, for uint8 clips [... t h w 3].

    Logits and features keep the leading axes, such as videos and their views.
    """

    def forward(variables: dict, rgb: jax.Array) -> ModelOutput:
        leading = rgb.shape[:-4]
        clip = normalize(to_unit_range(rgb.reshape(-1, *rgb.shape[-4:])), spec)
        output = model.apply(variables, clip)
        return jax.tree.map(lambda x: x.reshape(*leading, -1), output)

    return forward
