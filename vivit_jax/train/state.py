"""The state of a training: all that a step changes."""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from vivit_jax.models.variables import init_variables
from vivit_jax.video.preprocessing import Preprocessing


@flax.struct.dataclass
class TrainState:
    """Everything that a checkpoint needs to go on.

    Attributes:
        step: int32, updates done, which is also the position in the data.
        params: float32 tree.
        opt_state: of the optimizer.
        ema: moving averages of `params` and `batch_stats`, by these names, which are evaluated in
            their place; None: no averages.
        batch_stats: running means and variances of batch norms; empty without batch norms.
    """

    step: jax.Array
    params: dict
    opt_state: optax.OptState
    ema: dict | None = None
    batch_stats: dict = flax.struct.field(default_factory=dict)

    @property
    def eval_variables(self) -> dict:
        """The variables to evaluate and to predict with."""
        if self.ema is not None:
            return self.ema
        return {'params': self.params, 'batch_stats': self.batch_stats}


def start_state(
    variables: dict, optimizer: optax.GradientTransformation, has_ema: bool = False
) -> TrainState:
    """The state before the first step, with given variables."""
    params = variables['params']
    ema = jax.tree.map(jnp.copy, variables) if has_ema else None
    return TrainState(jnp.int32(0), params, optimizer.init(params), ema, variables['batch_stats'])


def init_state(
    key: jax.Array,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    spec: Preprocessing,
    has_ema: bool = False,
) -> TrainState:
    """The state before the first step, with freshly initialized variables."""
    return start_state(init_variables(key, model, spec.clip_shape), optimizer, has_ema)
