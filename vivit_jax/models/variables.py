"""The variables of a model: fresh values, or only their shapes."""

import flax.linen as nn
import jax
import jax.numpy as jnp


def init_variables(key: jax.Array, model: nn.Module, clip_shape: tuple[int, int, int]) -> dict:
    """Fresh `params` and `batch_stats`, the latter empty if the model has no batch norm.

    Args:
        key: random key.
        model: the model.
        clip_shape: (t, h, w) of its clips in frames and pixels.
    """
    variables = model.init(key, jnp.zeros((1, *clip_shape, 3)))
    return {name: variables.get(name, {}) for name in ('params', 'batch_stats')}


def abstract_variables(model: nn.Module, clip_shape: tuple[int, int, int]) -> dict:
    """The shapes and types of the trees that `init_variables` returns."""
    return jax.eval_shape(lambda: init_variables(jax.random.key(0), model, clip_shape))


def abstract_params(model: nn.Module, clip_shape: tuple[int, int, int]) -> dict:
    """The shapes and types of the parameters."""
    return abstract_variables(model, clip_shape)['params']
