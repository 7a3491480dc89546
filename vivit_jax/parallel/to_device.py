"""Moves the batches of a host to arrays on the mesh."""

import collections
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from vivit_jax.errors import UserError
from vivit_jax.heads import PerHead
from vivit_jax.parallel.mesh import batch_parts, batch_sharding, replicated
from vivit_jax.processes import Host

_Batch = dict[str, PerHead[np.ndarray]]


def to_global(
    batch: _Batch, sharding: NamedSharding, keys: Iterable[str]
) -> dict[str, PerHead[jax.Array]]:
    """Makes global arrays from this host's rows; the transfer continues in the background."""
    return jax.tree.map(
        lambda rows: jax.make_array_from_process_local_data(sharding, rows),
        {key: batch[key] for key in keys},
    )


def to_every_host(
    batch: _Batch, sharding: NamedSharding, keys: Iterable[str]
) -> dict[str, PerHead[np.ndarray]]:
    """The rows of all hosts, in the order of the global batch."""
    keys = tuple(keys)
    if jax.process_count() == 1:
        return {key: batch[key] for key in keys}
    return jax.device_get(_gather(sharding.mesh)(to_global(batch, sharding, keys)))


@functools.cache
def _gather(mesh: Mesh) -> Callable:
    return jax.jit(lambda x: x, out_shardings=replicated(mesh))


def put_whole(arrays, shardings):
    """Splits arrays that every host holds whole.

    Args:
        arrays: a tree of arrays, the same on every host.
        shardings: of each of them.
    """

    def put(x: np.ndarray, sharding: NamedSharding) -> jax.Array:
        # The copy keeps JAX from sharing memory with an array that may change later.
        return jax.make_array_from_callback(x.shape, sharding, lambda index: np.array(x[index]))

    return jax.tree.map(put, arrays, shardings)


def find_host(mesh: Mesh) -> Host:
    """Which part of a global batch this process loads.

    Processes whose devices differ only along the axis `tensor` load the same part.

    Raises:
        UserError: the devices of this process hold parts of the batch that do not follow each
            other.
    """
    parts = batch_parts(mesh)
    rows = batch_sharding(mesh).addressable_devices_indices_map((parts,))
    starts = sorted({index.start or 0 for (index,) in rows.values()})
    first, count = starts[0], len(starts)
    if first % count or starts != list(range(first, first + count)):
        raise UserError(
            f'parallel: a process has parts {starts} of the batch, which must follow each other: '
            'choose parallel.fsdp and parallel.tensor that divide the devices of a process, or '
            'are multiples of them'
        )
    return Host(first // count, parts // count)


def prefetch(
    batches: Iterator[_Batch],
    sharding: NamedSharding,
    keys: Iterable[str],
    size: int = 2,
) -> Iterator[tuple[_Batch, dict[str, PerHead[jax.Array]]]]:
    """Yields (host, device) batches; starts the transfer of `size` batches in advance."""
    keys = tuple(keys)
    ready = collections.deque()

    def fill(count: int):
        for batch in itertools.islice(batches, count):
            ready.append((batch, to_global(batch, sharding, keys)))

    fill(size)
    while ready:
        yield ready.popleft()
        fill(1)
