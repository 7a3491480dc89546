"""The device mesh and where arrays lie on it.

Axes `data` and `fsdp` split the batch, `tensor` the heads. All parameters are on all devices.
"""

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from vivit_jax.errors import UserError

BATCH_AXES = ('data', 'fsdp')
TENSOR_AXIS = 'tensor'


def create_mesh() -> Mesh:
    """All devices of all hosts along `data`."""
    axes = (*BATCH_AXES, TENSOR_AXIS)
    shape = (jax.device_count(), 1, 1)
    return jax.make_mesh(shape, axes, axis_types=(AxisType.Auto,) * len(axes))


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
