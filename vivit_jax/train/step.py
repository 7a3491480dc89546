"""One update of the parameters, and one forward pass."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from vivit_jax.augment.labels import swap_labels
from vivit_jax.augment.mixing import mix
from vivit_jax.augment.policy import Augmentation, augment, normalize, to_unit_range
from vivit_jax.heads import PerHead, map_heads, name_heads
from vivit_jax.models.outputs import ModelOutput
from vivit_jax.train.losses import cross_entropy, smooth_one_hot
from vivit_jax.train.parameters import find_frozen
from vivit_jax.train.state import TrainState
from vivit_jax.video.preprocessing import Preprocessing

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
    mirrored: PerHead[np.ndarray] | None = None,
    ema_decay: float = 0.0,
    freeze: Sequence[str] = (),
) -> Callable[[TrainState, dict[str, jax.Array]], tuple[TrainState, Metrics]]:
    """Makes the function (state, batch) -> (state, metrics).

    It is pure: what is random follows from `seed` and the step. A batch holds `rgb` uint8
    [b t h w 3] and `label` int32 [b] (of each head); the metrics are scalars: loss (the mean over
    heads), acc1 (all heads right), lr and grad_norm (before clipping), and of several heads also
    `<head>/loss` and `<head>/acc1`. `mirrored` is of `mirrored_labels`; `freeze` is for
    `find_frozen`; `ema_decay` is that of a state with an average.
    """

    def train_step(state: TrainState, batch: dict[str, jax.Array]) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        augment_key, dropout_key, mix_key, mirror_key = jax.random.split(key, 4)
        is_mirrored = jax.random.bernoulli(mirror_key, policy.flip, batch['rgb'].shape[:1])
        labels = swap_labels(batch['label'], is_mirrored, mirrored)
        targets = map_heads(
            lambda label, size: smooth_one_hot(label, size, label_smoothing),
            labels,
            model.num_classes,
        )
        clips = augment(augment_key, {'rgb': batch['rgb']}, is_mirrored, policy)
        clips, targets = mix(
            mix_key, clips, targets, policy.mixup_alpha, policy.cutmix_alpha, policy.repeats
        )
        clip = normalize(clips['rgb'], spec)

        frozen = find_frozen(state.params, freeze)

        def loss_fn(params: dict) -> tuple[jax.Array, tuple]:
            params = jax.tree.map(
                lambda x, is_frozen: jax.lax.stop_gradient(x) if is_frozen else x, params, frozen
            )
            rngs = {'dropout': dropout_key}
            output, changed = model.apply(
                {'params': params, 'batch_stats': state.batch_stats},
                clip,
                train=True,
                rngs=rngs,
                mutable='batch_stats',
            )
            losses = map_heads(cross_entropy, output.logits, targets)
            loss = jnp.mean(jnp.stack(jax.tree.leaves(losses)))
            return loss, (losses, output.logits, changed.get('batch_stats', {}))

        (loss, (losses, logits, batch_stats)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        is_right = map_heads(lambda x, label: x.argmax(-1) == label, logits, labels)
        metrics = {
            **name_heads('loss', losses),
            **name_heads('acc1', map_heads(jnp.mean, is_right)),
            'loss': loss,
            'acc1': jnp.mean(jnp.stack(jax.tree.leaves(is_right)).all(axis=0)),
            'lr': schedule(state.step),
            'grad_norm': optax.tree.norm(grads),
        }
        ema = state.ema
        if ema is not None:
            # The first steps are followed more closely.
            decay = jnp.minimum(ema_decay, (1 + state.step) / (10 + state.step))
            variables = {'params': params, 'batch_stats': batch_stats}
            ema = optax.incremental_update(variables, ema, 1 - decay)
        return TrainState(state.step + 1, params, opt_state, ema, batch_stats), metrics

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
