"""One update of the parameters."""

import functools
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.sharding import Mesh
from jax.stages import Wrapped

from vivit_jax.augment.batch import TrainInputs, augment_batch
from vivit_jax.augment.inputs import to_model_input
from vivit_jax.augment.policy import Augmentation
from vivit_jax.heads import PerHead, map_heads, name_heads
from vivit_jax.parallel.mesh import platform_of, replicated
from vivit_jax.parallel.offload import copy_to_devices
from vivit_jax.train.freezing import Hold, stop_frozen
from vivit_jax.train.losses import binary_cross_entropy, cross_entropy
from vivit_jax.train.state import TrainState
from vivit_jax.video.preprocessing import Preprocessing

Metrics = dict[str, jax.Array]
Tree = tuple[Metrics, dict]  # metrics and gradients

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
    focal_gamma: float = 0.0,
    class_weights: PerHead[np.ndarray] | None = None,
    ema_decay: float = 0.0,
    freeze: Sequence[str] = (),
    hold: Hold = Hold(),
    accumulate: int = 1,
) -> Callable[[TrainState, dict[str, jax.Array]], tuple[TrainState, Metrics]]:
    """Makes the function (state, batch) -> (state, metrics).

    The function is pure: all that is random follows from `seed` and the step. A batch holds `rgb`
    uint8 [b t h w 3] and/or `depth` uint16 [b t h w 1], as the modality of the model asks for, and
    `label` int32 [b] (of each head); the metrics are scalars: loss (the mean over heads),
    acc1 (all heads right), lr and grad_norm (before clipping), and of several heads also
    `<head>/loss` and `<head>/acc1`. If clips have any number of labels, `label` is float32
    [b classes], the loss is the binary cross-entropy, and there is no acc1.

    Args:
        model: the model.
        optimizer: of its parameters.
        schedule: learning rate by step, for the metrics.
        spec: preprocessing of the clips.
        policy: augmentation of the clips.
        label_smoothing: see `augment_batch`.
        seed: of all that is random.
        mirrored: see `augment_batch`.
        focal_gamma: see `cross_entropy`.
        class_weights: float32 [classes] of each head, see `cross_entropy`.
        ema_decay: of the moving averages of a state that has them.
        freeze: patterns of the names of frozen parameters, see `find_frozen`.
        hold: parameters that are frozen at first; while they are, the step computes no gradients
            of them.
        accumulate: see `mean_over_parts`.
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

        def mean_loss(label, targets, weights, *streams: jax.Array) -> jax.Array:
            """The mean over streams of the loss of their logits."""
            loss = cross_entropy if label.ndim == 1 else binary_cross_entropy
            losses = [loss(logits, targets, focal_gamma, weights) for logits in streams]
            return jnp.mean(jnp.stack(losses))

        def loss_fn(
            frozen: Sequence[str],
            params: dict,
            batch_stats: dict,
            inputs: TrainInputs,
            key: jax.Array,
        ):
            output, changed = model.apply(
                {'params': stop_frozen(params, frozen), 'batch_stats': batch_stats},
                to_model_input(inputs.clips, spec, model.spec),
                train=True,
                rngs={'dropout': key},
                mutable='batch_stats',
            )
            streams = list(output.streams.values()) or [output.logits]
            weights = class_weights
            if weights is None:
                weights = map_heads(lambda _: None, inputs.label)
            losses = map_heads(mean_loss, inputs.label, inputs.targets, weights, *streams)
            loss = jnp.mean(jnp.stack(jax.tree.leaves(losses)))
            metrics = {**name_heads('loss', losses), **_accuracies(output.logits, inputs.label)}
            # The gradient of the sum over streams, so that each learns as it would alone.
            total = len(streams) * loss
            return total, (metrics | {'loss': loss}, changed.get('batch_stats', {}))

        def differentiate(batch_stats: dict, *part) -> tuple[dict, tuple[Metrics, dict]]:
            def gradient(frozen: Sequence[str]) -> Callable:
                return jax.grad(functools.partial(loss_fn, frozen), has_aux=True)

            args = (state.params, batch_stats, *part)
            if hold.steps:
                grads, (metrics, batch_stats) = lax.cond(
                    state.step < hold.steps,
                    gradient((*freeze, *hold.patterns)),
                    gradient(freeze),
                    *args,
                )
            else:
                grads, (metrics, batch_stats) = gradient(freeze)(*args)
            return batch_stats, (metrics, grads)

        batch_stats, (metrics, grads) = mean_over_parts(
            differentiate, state.batch_stats, inputs, dropout_key, num_parts=accumulate
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics |= {'lr': schedule(state.step), 'grad_norm': optax.tree.norm(grads)}
        ema = state.ema
        if ema is not None:
            # The first steps are followed more closely.
            decay = jnp.minimum(ema_decay, (1 + state.step) / (10 + state.step))
            variables = {'params': params, 'batch_stats': batch_stats}
            ema = optax.incremental_update(variables, ema, 1 - decay)
        return TrainState(state.step + 1, params, opt_state, ema, batch_stats), metrics

    return train_step


def mean_over_parts(
    function: Callable[[dict, TrainInputs, jax.Array], tuple[dict, Tree]],
    carry: dict,
    inputs: TrainInputs,
    key: jax.Array,
    *,
    num_parts: int,
) -> tuple[dict, Tree]:
    """Calls (carry, inputs, key) -> (carry, values) for parts of a batch, one after the other.

    Only one part has activations at a time. The mean of the values equals the values of the whole
    batch, with two exceptions: each part draws its own dropout masks, and batch norms compute their
    statistics over one part.

    Args:
        function: of a part of the batch.
        carry: running statistics, which go from part to part.
        inputs: of the whole batch.
        key: random key; each part gets a key of its own.
        num_parts: equal parts of the batch.

    Returns:
        The last carry, and the mean of the values.
    """
    if num_parts == 1:
        return function(carry, inputs, key)

    def split(x: jax.Array) -> jax.Array:
        # Every part has clips of all devices: clip i is in part i mod num_parts.
        return x.reshape(-1, num_parts, *x.shape[1:]).swapaxes(0, 1)

    parts = jax.tree.map(split, inputs), jax.random.split(key, num_parts)
    first = jax.tree.map(lambda x: x[0], parts)
    zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(function, carry, *first)[1])

    def add(sums: tuple[dict, Tree], part: tuple) -> tuple[tuple[dict, Tree], None]:
        carry, values = function(sums[0], *part)
        return (carry, jax.tree.map(jnp.add, sums[1], values)), None

    (carry, total), _ = lax.scan(add, (carry, zeros), parts)
    return carry, jax.tree.map(lambda x: x / num_parts, total)


def _accuracies(logits: PerHead[jax.Array], label: PerHead[jax.Array]) -> Metrics:
    if any(x.ndim > 1 for x in jax.tree.leaves(label)):
        return {}
    is_right = map_heads(lambda x, label: x.argmax(-1) == label, logits, label)
    return {
        **name_heads('acc1', map_heads(jnp.mean, is_right)),
        'acc1': jnp.mean(jnp.stack(jax.tree.leaves(is_right)).all(axis=0)),
    }


def jit_train_step(step: Callable, state_sharding: TrainState, mesh: Mesh) -> Wrapped:
    """A training step of `create_train_step`, to be compiled for a mesh; the state is donated.

    Args:
        step: (state, batch) -> (state, metrics).
        state_sharding: the sharding of each array of the state. An optimizer's state that is kept
            on hosts is copied to the devices for its update.
        mesh: the devices. All of them get the metrics.
    """

    def train_step(state: TrainState, batch: dict) -> tuple[TrainState, Metrics]:
        opt_state = copy_to_devices(state.opt_state, state_sharding.opt_state)
        return step(state.replace(opt_state=opt_state), batch)

    return jax.jit(
        train_step,
        donate_argnums=0,
        out_shardings=(state_sharding, replicated(mesh)),
        compiler_options=_GPU_OPTIONS if platform_of(mesh) == 'cuda' else None,
    )
