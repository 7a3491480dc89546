"""Keeps the state of an optimizer in the memory of the hosts."""

import jax
from jax.sharding import Mesh, Sharding

from vivit_jax.errors import UserError

_HOST_MEMORY = 'pinned_host'


def keep_on_host(shardings, shapes, mesh: Mesh):
    """The same shardings, in the memory of the host of each device; scalars stay on the devices.

    Devices that are only there to compile for may have no host memory. For them the result equals
    `shardings`.

    Args:
        shardings: a tree.
        shapes: a tree of arrays or of `jax.ShapeDtypeStruct`.
        mesh: the devices.

    Raises:
        UserError: the devices have no such memory.
    """
    device = mesh.devices.flat[0]
    memories = {memory.kind for memory in device.addressable_memories()}
    if memories and _HOST_MEMORY not in memories:
        raise UserError(
            f'train.offload_optimizer: {device.device_kind} cannot keep arrays in the memory of '
            f'its host (it has {", ".join(sorted(memories))}); set it to False'
        )
    return jax.tree.map(
        lambda s, x: s.with_memory_kind(_HOST_MEMORY) if x.ndim else s, shardings, shapes
    )


def copy_to_devices(arrays, shardings):
    """Copies those arrays that are on hosts to their devices, within a compiled program.

    Args:
        arrays: a tree.
        shardings: of each of them.
    """

    def copy(x: jax.Array, sharding: Sharding) -> jax.Array:
        if sharding.memory_kind != _HOST_MEMORY:
            return x
        return jax.device_put(x, sharding.with_memory_kind('device'))

    return jax.tree.map(copy, arrays, shardings)
