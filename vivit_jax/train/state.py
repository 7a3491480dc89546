"""What training changes."""

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax

from vivit_jax.data.preprocessing import Preprocessing


@flax.struct.dataclass
class TrainState:
    """Everything that a checkpoint needs in order to go on.

    Attributes:
        step: int32, updates done, which is also the position in the data.
        params: float32 tree.
        opt_state: of the optimizer.
        ema: moving average of the parameters, which is what is evaluated; None where there is none.
    """

    step: jax.Array
    params: dict
    opt_state: optax.OptState
    ema: dict | None = None

    @property
    def eval_params(self) -> dict:
        """The parameters to evaluate and to predict with."""
        return self.params if self.ema is None else self.ema


def init_params(key: jax.Array, model: nn.Module, spec: Preprocessing) -> dict:
    """Fresh parameters for clips of a preprocessing."""
    return model.init(key, jnp.zeros((1, *spec.clip_shape, 3)))['params']


def abstract_params(model: nn.Module, spec: Preprocessing) -> dict:
    """Their shapes and types."""
    return jax.eval_shape(lambda: init_params(jax.random.key(0), model, spec))


def start_state(
    params: dict, optimizer: optax.GradientTransformation, has_ema: bool = False
) -> TrainState:
    """The state before the first step."""
    ema = jax.tree.map(jnp.copy, params) if has_ema else None
    return TrainState(jnp.int32(0), params, optimizer.init(params), ema)


def init_state(
    key: jax.Array,
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    spec: Preprocessing,
    has_ema: bool = False,
) -> TrainState:
    """That with fresh parameters."""
    return start_state(init_params(key, model, spec), optimizer, has_ema)
