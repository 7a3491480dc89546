"""The compiled programs of a config: training step and evaluation step, without any data."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jax.stages import Compiled, Wrapped
from ml_collections import ConfigDict

from vivit_jax.config import load
from vivit_jax.errors import UserError
from vivit_jax.evaluation.forward import create_forward, jit_logits
from vivit_jax.evaluation.views import parse_views
from vivit_jax.heads import PerHead, map_heads
from vivit_jax.layers.specification import Specification
from vivit_jax.models.registry import create_model
from vivit_jax.parallel.memory import Memory, plan_memory
from vivit_jax.parallel.mesh import batch_sharding, fit_dtype, platform_of
from vivit_jax.parallel.offload import keep_on_host
from vivit_jax.parallel.rules import split_arrays, split_optimizer
from vivit_jax.train.freezing import Hold
from vivit_jax.train.optimizer import create_optimizer
from vivit_jax.train.state import TrainState, init_state
from vivit_jax.train.step import create_train_step, jit_train_step
from vivit_jax.video.recording import PIXELS


class Programs:
    """Model, optimizer and steps of a config on a mesh; making one compiles nothing.

    The devices of the mesh need not be there: steps can be lowered and compiled for others, with
    the shapes of `abstract_state`, `abstract_batch` and `abstract_views`.

    Args:
        config: see `vivit_jax.config.schema`.
        mesh: the devices.
        num_classes: of each head.
        schedule: learning rate by step.
        mirrored: see `mirrored_labels`.
        class_weights: see `vivit_jax.train.losses.class_weights`.
        hold: parameters that do not change at first.
        platform: the steps will be lowered for it; by default for the devices of the mesh.

    Raises:
        UserError: the model's keywords do not fit each other, the clips or the mesh.
    """

    def __init__(
        self,
        config: ConfigDict,
        mesh: Mesh,
        num_classes: PerHead[int],
        schedule: optax.Schedule,
        mirrored: PerHead[np.ndarray] | None = None,
        class_weights: PerHead[np.ndarray] | None = None,
        hold: Hold = Hold(),
        platform: str | None = None,
    ):
        self.config, self.mesh, self.schedule = config, mesh, schedule
        self._num_classes, self._mirrored = num_classes, mirrored
        self._class_weights, self._hold = class_weights, hold
        self.spec = load.preprocessing(config)
        self.policy = load.augmentation(config)
        self.is_multi_label = bool(config.data.label_separator)
        self.model_keywords = {**load.model_keywords(config), 'num_classes': num_classes}
        try:
            self.model = fit_dtype(
                create_model(**self.model_keywords), platform or platform_of(mesh)
            )
            self.optimizer = create_optimizer(
                config.train,
                schedule,
                is_fusion=self.model.spec.modality == 'rgbd',
                hold=hold,
            )
            _check_fusion(self.model.spec, self.is_multi_label)
            shapes = jax.eval_shape(self.create_state)
        except UserError:
            raise
        except ValueError as error:
            raise UserError(f'model: {error}') from error
        sharding = split_arrays(shapes.replace(opt_state=()), mesh)
        opt_sharding = split_optimizer(shapes.opt_state, shapes.params, sharding.params, mesh)
        if config.train.offload_optimizer:
            opt_sharding = keep_on_host(opt_sharding, shapes.opt_state, mesh)
        self.state_sharding = sharding.replace(opt_state=opt_sharding)
        self.abstract_state = jax.tree.map(
            lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
            shapes,
            self.state_sharding,
        )

    def create_state(self) -> TrainState:
        """The state before the first step, with freshly initialized parameters."""
        key, has_ema = jax.random.key(self.config.seed), bool(self.config.train.ema_decay)
        return init_state(key, self.model, self.optimizer, self.spec, has_ema)

    def train_step(self) -> Wrapped:
        """(state, batch) -> (state, metrics), see `create_train_step`; the state is donated."""
        config = self.config.train
        step = create_train_step(
            self.model,
            self.optimizer,
            self.schedule,
            self.spec,
            self.policy,
            label_smoothing=config.label_smoothing,
            seed=self.config.seed,
            mirrored=self._mirrored,
            focal_gamma=config.focal_gamma,
            class_weights=self._class_weights,
            ema_decay=config.ema_decay,
            freeze=config.freeze,
            hold=self._hold,
            accumulate=config.accumulate,
        )
        return jit_train_step(step, self.state_sharding, self.mesh)

    def eval_step(self) -> Wrapped:
        """(variables, pixels) -> logits, as the evaluator runs it."""
        return jit_logits(create_forward(self.model, self.spec), self.mesh)

    def plan_training(
        self, compiled: Compiled | None, batch: dict, needed: float | None = None
    ) -> Memory:
        """The memory of a compiled training step for a batch, see `plan_memory`."""
        state, on_device, on_host = self.abstract_state, [], []
        # The sharding does not tell of GPUs that are not there, see `keep_on_host`.
        for x in jax.tree.leaves(state.opt_state):
            is_on_host = self.config.train.offload_optimizer and x.ndim
            (on_host if is_on_host else on_device).append(x)
        return plan_memory(
            compiled,
            (state.params, state.batch_stats),
            batch,
            optimizer=(on_device, state.ema),
            on_host=on_host,
            needed=needed,
        )

    def abstract_batch(self, batch_size: int) -> dict:
        """Shapes of a training batch of so many clips, all devices together."""

        def label(num_classes: int) -> jax.ShapeDtypeStruct:
            if self.is_multi_label:
                return self._of_batch((batch_size, num_classes), jnp.float32)
            return self._of_batch((batch_size,), jnp.int32)

        return {**self._clips(batch_size), 'label': map_heads(label, self._num_classes)}

    def abstract_views(self, batch_size: int) -> dict[str, jax.ShapeDtypeStruct]:
        """The shapes of a batch of the test: `eval.views` gives the crops of each temporal view."""
        return self._clips(batch_size, parse_views(self.config.eval.views)[1])

    def _clips(self, *leading: int) -> dict[str, jax.ShapeDtypeStruct]:
        return {
            kind: self._of_batch((*leading, *self.spec.clip_shape, channels), dtype)
            for kind, (channels, dtype) in PIXELS.items()
            if kind in self.model.spec.streams
        }

    def _of_batch(self, shape: tuple[int, ...], dtype: jnp.dtype) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(self.mesh))


def _check_fusion(spec: Specification, is_multi_label: bool):
    """Raises a UserError if a model averages the softmax of classes that have none."""
    if is_multi_label and spec.modality == 'rgbd' and spec.fusion == 'softmax_mean':
        raise UserError(
            "model.fusion='softmax_mean' averages probabilities of which one class is true, and "
            'with data.label_separator any number are: set model.fusion=logit_mean'
        )
