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
    """

    step: jax.Array
    params: dict
    opt_state: optax.OptState


def init_state(
    key: jax.Array, model: nn.Module, optimizer: optax.GradientTransformation, spec: Preprocessing
) -> TrainState:
    """A new state, with fresh parameters."""
    clip = jnp.zeros((1, spec.num_frames, spec.crop_size, spec.crop_size, 3))
    params = model.init(key, clip)['params']
    return TrainState(jnp.int32(0), params, optimizer.init(params))
