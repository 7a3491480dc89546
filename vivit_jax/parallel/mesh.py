"""The device mesh, the placement of arrays on it, and the type that its devices compute in.

The axes `data` and `fsdp` split the batch; `fsdp` splits the parameters too, and `tensor` splits
heads, MLPs and classifiers, see `vivit_jax.parallel.rules`.
"""

import dataclasses
import logging
import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from vivit_jax.errors import UserError

_log = logging.getLogger(__name__)

BATCH_AXES = ('data', 'fsdp')
TENSOR_AXIS = 'tensor'
MESH_AXES = (*BATCH_AXES, TENSOR_AXIS)


def create_mesh(
    sizes: tuple[int, int, int] = (-1, 1, 1), devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """A mesh of devices along the axes `MESH_AXES`.

    Args:
        sizes: of each axis; one of them may be -1, for all devices that remain.
        devices: by default all devices of all hosts.

    Raises:
        UserError: the sizes do not make up the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    known = math.prod(size for size in sizes if size != -1) or 1  # 0 is refused below
    shape = tuple(len(devices) // known if size == -1 else size for size in sizes)
    if sizes.count(-1) > 1 or min(shape) < 1 or math.prod(shape) != len(devices):
        asked = ', '.join(
            f'parallel.{axis}={size}' for axis, size in zip(MESH_AXES, sizes, strict=True)
        )
        raise UserError(
            f'{asked} must multiply to {len(devices)} device(s); one of the three may be -1, for '
            'all that remain'
        )
    return jax.make_mesh(
        shape, MESH_AXES, axis_types=(AxisType.Auto,) * len(shape), devices=devices
    )


def platform_of(mesh: Mesh) -> str:
    """The platform for which programs are lowered: `'cpu'`, `'cuda'`, `'rocm'` or `'tpu'`."""
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


def batch_parts(mesh: Mesh) -> int:
    """The number of parts into which a batch is split."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def check_batch_size(batch_size: int, mesh: Mesh, key: str, accumulate: int = 1):
    """Raises a UserError if a global batch does not divide among the devices.

    Args:
        batch_size: clips of all devices together.
        mesh: the devices.
        key: the config key of the batch size.
        accumulate: parts of the batch that each device computes one after the other.
    """
    parts = batch_parts(mesh) * accumulate
    if batch_size % parts:
        why = f', for train.accumulate={accumulate}' if accumulate > 1 else ''
        near = max(parts, round(batch_size / parts) * parts)
        raise UserError(
            f'{key}={batch_size} is the batch of all {mesh.size} devices together and must divide '
            f'into {parts} equal parts{why}: choose a multiple of {parts}, such as {near}'
        )


def fit_dtype(model: nn.Module, platform: str) -> nn.Module:
    """Returns the model, which on CPUs computes in float32.

    16-bit types make accelerators faster, but most CPUs slower, because these convert every number.
    """
    if platform != 'cpu' or jnp.dtype(model.spec.dtype).itemsize > 2:
        return model
    _log.info('Computing in float32 in place of %s, which CPUs are slow at', model.spec.dtype)
    return model.clone(spec=dataclasses.replace(model.spec, dtype='float32'))


def _mesh_in_use() -> AbstractMesh | None:
    """The mesh of `jax.set_mesh`; None: there is one device, or the mesh has other axes."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh if mesh.size > 1 and mesh.axis_names == MESH_AXES else None


def constrain(x: jax.Array, *axes: str | tuple[str, ...] | None) -> jax.Array:
    """Returns x, split along its axes as given; use it where the compiler chooses badly.

    Args:
        x: any array.
        *axes: for each axis of x, the axes of the mesh in use that split it, or None. Axes of x
            that are left out are not split, nor is an axis that does not divide among the devices.
    """
    mesh = _mesh_in_use()
    if mesh is None:
        return x

    def divides(size: int, names: str | tuple[str, ...] | None) -> bool:
        names = (names,) if isinstance(names, str) else names or ()
        return size % math.prod(mesh.shape[name] for name in names) == 0

    spec = [i if divides(n, i) else None for n, i in zip(x.shape, axes, strict=False)]
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*spec))


def on_each_device(
    function: Callable[..., jax.Array], *args, head_axes: Sequence[int | None] = ()
) -> jax.Array:
    """Calls `function` on every device of the mesh in use, with its own part of the arguments.

    Use it for functions that the compiler cannot partition: kernels, and loops over a batch or over
    heads.

    Args:
        function: takes arrays, or trees of arrays, and returns an array. The first axis of all of
            them is the batch.
        *args: arguments for all devices together. If the batch does not divide among the devices,
            every device gets the whole batch.
        head_axes: the axis of the heads in each argument, if the heads are to be split too. The
            result has its heads on the same axis as the first argument.
    """
    mesh = _mesh_in_use()
    if mesh is None:
        return function(*args)
    head_axes = head_axes or (None,) * len(args)
    first = jax.tree.leaves(args[0])[0]
    batch = None if len(first) % batch_parts(mesh) else BATCH_AXES

    def spec(head_axis: int | None) -> PartitionSpec:
        if head_axis is None or first.shape[head_axes[0]] % mesh.shape[TENSOR_AXIS]:
            return PartitionSpec(batch)
        return PartitionSpec(batch, *(None,) * (head_axis - 1), TENSOR_AXIS)

    return jax.shard_map(
        function,
        in_specs=tuple(map(spec, head_axes)),
        out_specs=spec(head_axes[0]),
        check_vma=False,  # loops and kernels do not declare along which axes they vary
    )(*args)
