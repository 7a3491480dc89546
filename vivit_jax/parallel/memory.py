"""The memory of a device that a step needs."""

import dataclasses
import math

import jax
from jax.sharding import Mesh
from jax.stages import Compiled

from vivit_jax.parameter_names import parameter_names

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes of one device.

    Attributes:
        parameters: parameters and running statistics.
        optimizer: the state of the optimizer, and the moving average of the parameters.
        batch: clips and labels.
        temporaries: activations, gradients and other arrays that live only within a step; None if
            nothing was compiled.
        needed: if the compiler refused the program, the bytes that it says the program needs; else
            None.
        on_host: the part of the state of the optimizer that is in the memory of the host, and not
            in the memory of the device.
    """

    parameters: int
    optimizer: int
    batch: int
    temporaries: int | None
    needed: float | None = None
    on_host: int = 0

    @property
    def total(self) -> float:
        """The bytes that a step needs, as far as they are known."""
        if self.needed is not None:
            return self.needed
        return self.parameters + self.optimizer + self.batch + (self.temporaries or 0)

    def fits(self, capacity: float) -> bool:
        """Whether a device with `capacity` bytes is large enough, and the compiler agrees."""
        return self.needed is None and self.total <= capacity


def plan_memory(
    compiled: Compiled | None,
    parameters,
    batch,
    *,
    optimizer=(),
    on_host=(),
    needed: float | None = None,
) -> Memory:
    """The memory that a compiled step needs on each device.

    Args:
        compiled: the step; None: it was not compiled.
        parameters: a tree of shapes with their shardings: parameters and running statistics.
        batch: the same, of clips and labels.
        optimizer: the same, of the optimizer's state and moving averages on the devices.
        on_host: the same, of the optimizer's state on the hosts.
        needed: see `Memory`.
    """
    sizes = map(count_bytes, (parameters, optimizer, batch))
    memory = Memory(*sizes, None, needed, count_bytes(on_host))
    if compiled is None:
        return memory
    plan = compiled.memory_analysis()
    planned = (
        plan.argument_size_in_bytes
        + plan.temp_size_in_bytes
        + plan.output_size_in_bytes
        - plan.alias_size_in_bytes
    )
    # CPUs have only one memory, and a compiler for GPUs that are not there knows no other.
    if plan.argument_size_in_bytes >= memory.total + memory.on_host:
        planned -= memory.on_host
    return dataclasses.replace(memory, temporaries=int(planned - memory.total))


def count_bytes(tree) -> int:
    """The bytes of a tree of shapes with shardings, on one device."""
    return sum(
        math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree)
    )


def describe_size(size: float) -> str:
    """Such as `'    1.50 GiB'` or `'   12.00 MiB'`."""
    unit, name = (GIB, 'GiB') if size >= GIB / 10 else (2**20, 'MiB')
    return f'{size / unit:8.2f} {name}'


def describe_memory(memory: Memory) -> str:
    """A line about the memory of a device."""
    parts = {
        'parameters': memory.parameters,
        'optimizer': memory.optimizer,
        'batch': memory.batch,
        'activations and temporaries': memory.temporaries,
    }
    line = f'A device needs {describe_size(memory.total).strip()}: ' + ', '.join(
        f'{name} {describe_size(size or 0).strip()}' for name, size in parts.items()
    )
    if memory.on_host:
        line += f'; in the memory of its host: optimizer {describe_size(memory.on_host).strip()}'
    return line


def describe_placement(params: dict, mesh: Mesh) -> str:
    """The mesh, and which parameters every device holds whole.

    Args:
        params: a tree of shapes with their shardings.
        mesh: the devices.
    """
    shape = ' x '.join(f'{axis} {size}' for axis, size in mesh.shape.items())
    if mesh.shape['fsdp'] * mesh.shape['tensor'] == 1:
        return f'Mesh {shape}: every device holds all parameters'
    named = zip(jax.tree.leaves(parameter_names(params)), jax.tree.leaves(params), strict=True)
    whole = {name: count_bytes(x) for name, x in named if x.sharding.is_fully_replicated}
    largest = sorted(whole, key=whole.get, reverse=True)[:3]
    return (
        f'Mesh {shape}: every device holds {sum(whole.values()) / 2**20:.2f} MiB of parameters '
        'that are not split, the largest '
        + ', '.join(f'{name} {whole[name] / 2**20:.2f}' for name in largest)
    )
