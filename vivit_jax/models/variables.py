"""The shapes of a model's clips, and its variables: fresh values, or only their shapes."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from vivit_jax.layers.specification import Specification


def abstract_clip(
    spec: Specification, clip_shape: tuple[int, ...], batch_size: int = 1
) -> jax.ShapeDtypeStruct | dict[str, jax.ShapeDtypeStruct]:
    """The shape and type of the clips that a model takes; of RGB and depth, a dict of both.

    Args:
        spec: the specification of the model.
        clip_shape: (t, h, w) of its clips in frames and pixels.
        batch_size: number of clips.
    """
    clips = {
        name: jax.ShapeDtypeStruct((batch_size, *clip_shape, stream.num_channels), jnp.float32)
        for name, stream in spec.streams.items()
    }
    return clips if spec.modality == 'rgbd' else clips[spec.modality]


def init_variables(key: jax.Array, model: nn.Module, clip_shape: tuple[int, int, int]) -> dict:
    """Fresh `params` and `batch_stats`, the latter empty if the model has no batch norm.

    Args:
        key: random key.
        model: the model.
        clip_shape: (t, h, w) of its clips in frames and pixels.
    """
    clip = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), abstract_clip(model.spec, clip_shape)
    )
    variables = model.init(key, clip)
    return {name: variables.get(name, {}) for name in ('params', 'batch_stats')}


def abstract_variables(model: nn.Module, clip_shape: tuple[int, int, int]) -> dict:
    """The shapes and types of the trees that `init_variables` returns."""
    return jax.eval_shape(lambda: init_variables(jax.random.key(0), model, clip_shape))


def abstract_params(model: nn.Module, clip_shape: tuple[int, int, int]) -> dict:
    """The shapes and types of the parameters."""
    return abstract_variables(model, clip_shape)['params']
