"""Moves the batches of a host to arrays on the mesh."""

import collections
import itertools
from collections.abc import Iterable, Iterator

import jax
import numpy as np
from jax.sharding import NamedSharding

from vivit_jax.heads import PerHead

_Batch = dict[str, PerHead[np.ndarray]]


def to_global(
    batch: _Batch, sharding: NamedSharding, keys: Iterable[str]
) -> dict[str, PerHead[jax.Array]]:
    """Makes global arrays from this host's rows; the transfer continues in the background."""
    return jax.tree.map(
        lambda rows: jax.make_array_from_process_local_data(sharding, rows),
        {key: batch[key] for key in keys},
    )


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
