"""The device mesh, where arrays lie on it, and the type that its devices compute in.

Axes `data` and `fsdp` split the batch, `tensor` the heads. All parameters are on all devices.
"""

import dataclasses
import logging
import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vivit_jax.errors import UserError

_log = logging.getLogger(__name__)

BATCH_AXES = ('data', 'fsdp')
TENSOR_AXIS = 'tensor'
MESH_AXES = (*BATCH_AXES, TENSOR_AXIS)


def create_mesh() -> Mesh:
    """All devices of all hosts along `data`."""
    shape = (jax.device_count(), 1, 1)
    return jax.make_mesh(shape, MESH_AXES, axis_types=(AxisType.Auto,) * len(shape))


def platform_of(mesh: Mesh) -> str:
    """What programs are lowered for on a mesh: `'cpu'`, `'cuda'`, `'rocm'` or `'tpu'`."""
    device = mesh.devices.flat[0]
    if device.platform != 'gpu':
        return device.platform
    return 'rocm' if device.device_kind.startswith('AMD') else 'cuda'


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Splits the first axis of an array among the devices."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def check_batch_size(batch_size: int, mesh: Mesh, key: str):
    """Raises a UserError where a global batch does not divide among the devices."""
    parts = int(np.prod([mesh.shape[axis] for axis in BATCH_AXES]))
    if batch_size % parts:
        near = max(parts, round(batch_size / parts) * parts)
        raise UserError(
            f'{key}={batch_size} is the batch of all {parts} devices together and must divide '
            f'among them: choose a multiple of {parts}, such as {near}'
        )


def fit_dtype(model: nn.Module, platform: str) -> nn.Module:
    """The model as a platform is to compute it: on CPUs in float32.

    What makes accelerators fast makes most CPUs slow: they convert every 16-bit number.
    """
    if platform != 'cpu' or jnp.dtype(model.spec.dtype).itemsize > 2:
        return model
    _log.info('Computing in float32 in place of %s, which CPUs are slow at', model.spec.dtype)
    return model.clone(spec=dataclasses.replace(model.spec, dtype='float32'))


def on_each_device(
    function: Callable[..., jax.Array], *args, head_axes: Sequence[int | None] = ()
) -> jax.Array:
    """Calls `function` on every device of the mesh in use, with its own part of the arguments.

    For what the compiler cannot partition by itself: kernels, loops over a batch or over heads.

    Args:
        function: of arrays, or trees of them, whose first axis is the batch; so is its result.
        *args: for all devices together. A batch that does not divide is given to each as a whole.
        head_axes: of each argument, the axis of the heads, if these are to be split too; the result
            has them where the first argument has them.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return function(*args)
    head_axes = head_axes or (None,) * len(args)
    first = jax.tree.leaves(args[0])[0]
    parts = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    batch = None if len(first) % parts else BATCH_AXES

    def spec(head_axis: int | None) -> PartitionSpec:
        if head_axis is None or first.shape[head_axes[0]] % mesh.shape[TENSOR_AXIS]:
            return PartitionSpec(batch)
        return PartitionSpec(batch, *(None,) * (head_axis - 1), TENSOR_AXIS)

    return jax.shard_map(
        function,
        in_specs=tuple(map(spec, head_axes)),
        out_specs=spec(head_axes[0]),
        check_vma=False,  # loops and kernels inside do not say what they vary over
    )(*args)
