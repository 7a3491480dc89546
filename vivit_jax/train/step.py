"""One update of the parameters."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jax.stages import Wrapped

from vivit_jax.augment.batch import augment_batch
from vivit_jax.augment.policy import Augmentation
from vivit_jax.heads import PerHead, map_heads, name_heads
from vivit_jax.parallel.mesh import platform_of, replicated
from vivit_jax.train.freezing import stop_frozen
from vivit_jax.train.losses import cross_entropy
from vivit_jax.train.state import TrainState
from vivit_jax.video.preprocessing import Preprocessing

Metrics = dict[str, jax.Array]

# Compiler options for NVIDIA GPUs. When XLA may choose Triton's matrix products, it adds the biases
# of queries, keys and values in a separate pass over all tokens. On an H100, the training step of
# ViViT-B/16x2 takes 4 % less time without Triton's products.
_GPU_OPTIONS = {'xla_gpu_enable_triton_gemm': False}


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

    The function is pure: all that is random follows from `seed` and the step. A batch holds `rgb`
    uint8 [b t h w 3] and `label` int32 [b] (of each head); the metrics are scalars: loss (the mean
    over heads), acc1 (all heads right), lr and grad_norm (before clipping), and of several heads
    also `<head>/loss` and `<head>/acc1`.

    Args:
        model: the model.
        optimizer: of its parameters.
        schedule: learning rate by step, for the metrics.
        spec: preprocessing of the clips.
        policy: augmentation of the clips.
        label_smoothing: see `augment_batch`.
        seed: of all that is random.
        mirrored: see `augment_batch`.
        ema_decay: of the moving averages of a state that has them.
        freeze: patterns of the names of frozen parameters, see `find_frozen`.
    """

    def train_step(state: TrainState, batch: dict[str, jax.Array]) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(seed), state.step)
        clips_key, dropout_key, mix_key, mirror_key = jax.random.split(key, 4)
        inputs = augment_batch(
            (mirror_key, clips_key, mix_key),
            batch,
            policy,
            spec=spec,
            num_classes=model.spec.num_classes,
            label_smoothing=label_smoothing,
            mirrored=mirrored,
        )

        def loss_fn(params: dict) -> tuple[jax.Array, tuple]:
            output, changed = model.apply(
                {'params': stop_frozen(params, freeze), 'batch_stats': state.batch_stats},
                inputs.clip,
                train=True,
                rngs={'dropout': dropout_key},
                mutable='batch_stats',
            )
            losses = map_heads(cross_entropy, output.logits, inputs.targets)
            loss = jnp.mean(jnp.stack(jax.tree.leaves(losses)))
            return loss, (losses, output.logits, changed.get('batch_stats', {}))

        (loss, (losses, logits, batch_stats)), grads = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        is_right = map_heads(lambda x, label: x.argmax(-1) == label, logits, inputs.label)
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


def jit_train_step(step: Callable, state_sharding: TrainState, mesh: Mesh) -> Wrapped:
    """A training step of `create_train_step`, to be compiled for a mesh; the state is donated.

    Args:
        step: (state, batch) -> (state, metrics).
        state_sharding: the sharding of each array of the state.
        mesh: the devices. All of them get the metrics.
    """
    return jax.jit(
        step,
        donate_argnums=0,
        out_shardings=(state_sharding, replicated(mesh)),
        compiler_options=_GPU_OPTIONS if platform_of(mesh) == 'cuda' else None,
    )
