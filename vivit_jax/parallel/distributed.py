"""Connects the processes of a program, on one machine or many.

Every process runs the same command. Where the processes are is read from their environment.
"""

import contextlib
import dataclasses
import glob
import importlib.util
import logging
import os
import re
import sys
import threading
from collections.abc import Iterator, Mapping

import jax

from vivit_jax.errors import UserError

_log = logging.getLogger(__name__)

_VARIABLES = ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID')
_SLURM_VARIABLES = ('SLURM_JOB_ID', 'SLURM_STEP_NODELIST', 'SLURM_PROCID', 'SLURM_LOCALID')
_TIMEOUT_SECONDS = 300  # that processes wait for each other at the start
# What errors say when a collective failed for want of another process.
_LOST = re.compile(r'(?i)gloo|nccl|connection (reset|closed)|heartbeat|coordination service')


@dataclasses.dataclass(frozen=True)
class Launch:
    """What started this process.

    Attributes:
        where: in words, such as `'SLURM job 17'`.
        arguments: of `jax.distributed.initialize`; None: the process runs alone.
    """

    where: str
    arguments: dict[str, object] | None = None


def find_launch(environment: Mapping[str, str]) -> Launch:
    """Reads from environment variables what started this process.

    - JAX_COORDINATOR_ADDRESS=host:port of process 0, JAX_NUM_PROCESSES and JAX_PROCESS_ID, as a
      Kubernetes JobSet sets them: these processes.
    - A step of SLURM with several tasks: its tasks. The tasks of a node share its GPUs equally.
    - A machine with a TPU: all hosts of the slice, as JAX finds them.
    - Otherwise the process runs alone.

    Raises:
        UserError: some of the variables are missing, or have no number where one belongs.
    """
    values = {name: environment.get(name) for name in _VARIABLES}
    if any(values.values()):
        if not all(values.values()):
            missing = [name for name, value in values.items() if not value]
            raise UserError(
                f'{", ".join(missing)} must be set too: either all of {", ".join(_VARIABLES)}, '
                'or none'
            )
        address = values['JAX_COORDINATOR_ADDRESS']
        if not re.search(r':\d+$', address):
            raise UserError(
                f'JAX_COORDINATOR_ADDRESS={address} must end in a port, such as host0:1234'
            )
        arguments = {
            'coordinator_address': address,
            'num_processes': _number(environment, 'JAX_NUM_PROCESSES'),
            'process_id': _number(environment, 'JAX_PROCESS_ID'),
            'cluster_detection_method': 'deactivate',
        }
        is_kubernetes = 'KUBERNETES_SERVICE_HOST' in environment
        return Launch('Kubernetes' if is_kubernetes else 'environment variables', arguments)
    if all(name in environment for name in _SLURM_VARIABLES):
        where = f'SLURM job {environment["SLURM_JOB_ID"]}'
        if _number(environment, 'SLURM_NTASKS') == 1:
            return Launch(where)
        return Launch(
            where,
            {
                'cluster_detection_method': 'slurm',
                'local_device_ids': _slurm_gpus(environment),
            },
        )
    if _has_tpu():
        is_gke = {'TPU_WORKER_HOSTNAMES', 'TPU_PROCESS_ADDRESSES'} & environment.keys()
        where, method = ('Kubernetes', 'gketpu') if is_gke else ('TPU VM', 'gcetpu')
        return Launch(where, {'cluster_detection_method': method})
    return Launch('one machine')


def initialize(lost_sec: int = 30):
    """Connects this process with the others, if there are any, and says in one line what it found.

    Args:
        lost_sec: after so many seconds without a sign of life a process counts as lost, and the
            others end.

    Raises:
        UserError: the environment describes processes that do not find each other.
    """
    launch = find_launch(os.environ)
    if launch.arguments is None:
        return
    # When its own timeout is over, JAX aborts the process without saying what to do.
    timer = threading.Timer(_TIMEOUT_SECONDS, _give_up, [launch.where])
    timer.daemon = True
    timer.start()
    try:
        jax.distributed.initialize(
            **launch.arguments,
            initialization_timeout=_TIMEOUT_SECONDS + 60,
            heartbeat_timeout_seconds=lost_sec,
        )
    except (RuntimeError, ValueError, TypeError, OSError) as error:
        if launch.arguments.get('cluster_detection_method') == 'gcetpu':
            # A TPU outside of Google's cloud, as in a notebook, is no part of a slice.
            _log.warning('%s: no other hosts found, this one works alone (%s)', launch.where, error)
            return
        raise UserError(_cannot_join(launch.where, str(error))) from error
    finally:
        timer.cancel()
    _log.info(
        '%s: process %d of %d, with %d of %d device(s)',
        launch.where,
        jax.process_index(),
        jax.process_count(),
        jax.local_device_count(),
        jax.device_count(),
    )


def _cannot_join(where: str, why: str) -> str:
    return (
        f'{where}: this process cannot join the others: {why} All processes must run the same '
        f'command, and reach the host and port of process 0 within {_TIMEOUT_SECONDS} s'
    )


def _give_up(where: str):
    print(f'Error: {_cannot_join(where, "not all of them came.")}', file=sys.stderr, flush=True)
    os._exit(2)


@contextlib.contextmanager
def end_if_process_is_lost() -> Iterator[None]:
    """Ends this process with a message when a collective fails because another process is gone.

    It ends with status 1 and without the usual clean-up, which would wait for the lost process.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        if jax.process_count() == 1 or not _LOST.search(str(error)):
            raise
        reason = str(error).strip().splitlines()[0]
        print(
            f'Error: process {jax.process_index()} of {jax.process_count()} cannot go on, because '
            f'another one is gone ({reason}). Its log says why. Start all processes again with '
            'the same command: the run goes on from its newest checkpoint',
            file=sys.stderr,
            flush=True,
        )
        os._exit(1)


def _slurm_gpus(environment: Mapping[str, str]) -> list[int]:
    """The numbers of the GPUs of this task, of those that it sees; empty: all of them.

    SLURM shows every task of a node all GPUs of the node, or, with `--gpus-per-task` or
    `--gpu-bind`, only its own.
    """
    # Such as '4', or '4(x2),2': four tasks on each of two nodes, two on a third.
    counts = environment.get('SLURM_STEP_TASKS_PER_NODE') or '1'
    tasks = max(int(count) for count in re.findall(r'(\d+)(?:\(x\d+\))?(?:,|$)', counts))
    visible = environment.get('CUDA_VISIBLE_DEVICES')
    number = len(visible.split(',')) if visible else int(environment.get('SLURM_GPUS_ON_NODE', 0))
    if tasks == 1 or number < tasks:
        return []
    share, task = number // tasks, _number(environment, 'SLURM_LOCALID')
    return list(range(task * share, (task + 1) * share))


def _has_tpu() -> bool:
    """Whether this machine has a TPU and JAX can use it."""
    wanted = jax.config.jax_platforms or 'tpu'
    has_chip = bool(glob.glob('/dev/accel*') or glob.glob('/dev/vfio/[0-9]*'))
    return 'tpu' in wanted and has_chip and importlib.util.find_spec('libtpu') is not None


def _number(environment: Mapping[str, str], name: str) -> int:
    try:
        return int(environment[name])
    except (KeyError, ValueError) as error:
        raise UserError(f'{name}={environment.get(name)!r} must be a number') from error
