"""Starts several processes as one program."""

import os

import jax

from vivit_jax.errors import UserError

_VARIABLES = ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')


def initialize():
    """Connects this process with the others that environment variables describe, if set.

    Every process runs the same command with JAX_COORDINATOR_ADDRESS=host:port of process 0,
    JAX_NUM_PROCESSES and its own JAX_PROCESS_ID. Without these variables the program runs alone.

    Raises:
        UserError: some of the variables are set, but not all.
    """
    values = [os.environ.get(name) for name in _VARIABLES]
    if not any(values):
        return
    if not all(values):
        raise UserError(f'set all of {", ".join(_VARIABLES)} or none; found {values}')
    address, count, index = values
    jax.distributed.initialize(address, num_processes=int(count), process_id=int(index))
