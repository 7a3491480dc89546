"""Batches of the host to arrays on the mesh."""

import collections
import itertools
from collections.abc import Iterable, Iterator

import jax
import numpy as np
from jax.sharding import NamedSharding


def to_global(
    batch: dict[str, np.ndarray], sharding: NamedSharding, keys: Iterable[str]
) -> dict[str, jax.Array]:
    """Makes global arrays of this host's rows; the transfer goes on in the background."""
    return {key: jax.make_array_from_process_local_data(sharding, batch[key]) for key in keys}


def prefetch(
    batches: Iterator[dict[str, np.ndarray]],
    sharding: NamedSharding,
    keys: Iterable[str],
    size: int = 2,
) -> Iterator[tuple[dict[str, np.ndarray], dict[str, jax.Array]]]:
    """Keeps `size` batches on their way to the device; yields (host, device) batches."""
    keys = tuple(keys)
    ready = collections.deque()

    def fill(count: int):
        for batch in itertools.islice(batches, count):
            ready.append((batch, to_global(batch, sharding, keys)))

    fill(size)
    while ready:
        yield ready.popleft()
        fill(1)
