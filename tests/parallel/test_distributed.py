"""What started a process, as its environment says, and which part of a batch it loads."""

import logging
import sys
import threading
import time
from types import SimpleNamespace

import jax
import pytest
from python_process import run_python

from vivit_jax import processes
from vivit_jax.errors import UserError
from vivit_jax.parallel import distributed, to_device
from vivit_jax.parallel.distributed import find_launch
from vivit_jax.parallel.mesh import create_mesh
from vivit_jax.processes import Host
from vivit_jax.train.loop import Trainer
from vivit_jax.train.watchdog import watch

JOBSET = {
    'JAX_COORDINATOR_ADDRESS': 'vivit-jax-hosts-0-0.vivit-jax:8476',
    'JAX_NUM_PROCESSES': '2',
    'JAX_PROCESS_ID': '1',
}
SLURM = {
    'SLURM_JOB_ID': '17',
    'SLURM_STEP_NODELIST': 'node[001-002]',
    'SLURM_NTASKS': '8',
    'SLURM_PROCID': '5',
    'SLURM_LOCALID': '1',
    'SLURM_STEP_TASKS_PER_NODE': '4(x2)',
}


@pytest.fixture(autouse=True)
def no_chips(monkeypatch):
    monkeypatch.setattr(distributed.glob, 'glob', lambda pattern: [])


def test_a_process_without_variables_is_alone():
    assert find_launch({'PATH': '/bin', 'SLURM_JOB_ID': '17'}).arguments is None


def test_variables_name_the_processes():
    launch = find_launch({**JOBSET, 'KUBERNETES_SERVICE_HOST': '10.0.0.1'})
    assert launch.where == 'Kubernetes'
    assert launch.arguments == {
        'coordinator_address': 'vivit-jax-hosts-0-0.vivit-jax:8476',
        'num_processes': 2,
        'process_id': 1,
        'cluster_detection_method': 'deactivate',
    }


@pytest.mark.parametrize('name', JOBSET)
def test_a_missing_variable_or_a_word_for_a_number_is_named(name):
    with pytest.raises(UserError, match=f'^{name} must be set too'):
        find_launch({key: value for key, value in JOBSET.items() if key != name})
    if name != 'JAX_COORDINATOR_ADDRESS':
        with pytest.raises(UserError, match=f"{name}='two' must be a number"):
            find_launch({**JOBSET, name: 'two'})


def test_an_address_without_a_port_is_named():
    with pytest.raises(UserError, match=r'JAX_COORDINATOR_ADDRESS=host0 must end in a port'):
        find_launch({**JOBSET, 'JAX_COORDINATOR_ADDRESS': 'host0'})


@pytest.mark.parametrize(('method', 'is_alone'), [('gcetpu', True), ('slurm', False)])
def test_only_a_tpu_without_a_slice_goes_on_alone(monkeypatch, caplog, method, is_alone):
    def fails(**arguments):
        raise ValueError('coordinator_address should be defined.')

    launch = distributed.Launch('here', {'cluster_detection_method': method})
    monkeypatch.setattr(distributed, 'find_launch', lambda environment: launch)
    monkeypatch.setattr(distributed.jax.distributed, 'initialize', fails)
    if is_alone:
        distributed.initialize()
        assert 'works alone (coordinator_address should be defined.)' in caplog.text
    else:
        with pytest.raises(UserError, match='here: this process cannot join the others'):
            distributed.initialize()


ALONE = """
import os, socket, sys
from vivit_jax.parallel import distributed
distributed._TIMEOUT_SECONDS = 1
with socket.socket() as found:
    found.bind(('localhost', 0))
    address = f'localhost:{found.getsockname()[1]}'
os.environ.update(
    JAX_COORDINATOR_ADDRESS=address, JAX_NUM_PROCESSES='2', JAX_PROCESS_ID=sys.argv[1]
)
distributed.initialize()
"""


@pytest.mark.parametrize('process', ['0', '1'])
def test_process_whose_others_do_not_come_says_so(process):
    done = run_python([sys.executable, '-c', ALONE, process], timeout=60)
    assert done.returncode == 2
    assert 'cannot join the others: not all of them came' in done.stderr
    assert 'host and port of process 0 within 1 s' in done.stderr


@pytest.mark.parametrize('sizes', [(2, 1, 1), (0, 1, 1), (-1, -1, 1), (-1, 1, 3), (-2, 1, 1)])
def test_sizes_must_make_up_the_devices(sizes):
    with pytest.raises(UserError, match=r'parallel.data=-?\d, .* must multiply to 1 device'):
        create_mesh(sizes)


@pytest.mark.parametrize(
    ('more', 'gpus'),
    [
        ({'CUDA_VISIBLE_DEVICES': '0,1,2,3,4,5,6,7'}, [2, 3]),
        ({'SLURM_GPUS_ON_NODE': '4'}, [1]),
        ({'CUDA_VISIBLE_DEVICES': '3'}, []),  # --gpus-per-task: this one and no other is visible
        ({'CUDA_VISIBLE_DEVICES': '0,1', 'SLURM_STEP_TASKS_PER_NODE': '1(x8)'}, []),  # all of them
        ({}, []),
    ],
    ids=str,
)
def test_tasks_of_a_node_share_its_gpus(more, gpus):
    launch = find_launch({**SLURM, **more})
    assert launch.where == 'SLURM job 17'
    assert launch.arguments == {'cluster_detection_method': 'slurm', 'local_device_ids': gpus}


def test_a_single_task_is_alone():
    assert find_launch({**SLURM, 'SLURM_NTASKS': '1'}).arguments is None


def test_hosts_of_a_tpu_slice_are_found_by_jax(monkeypatch):
    monkeypatch.setattr(distributed, '_has_tpu', lambda: True)
    assert find_launch({}).arguments == {'cluster_detection_method': 'gcetpu'}
    in_kubernetes = find_launch({'TPU_WORKER_HOSTNAMES': 'a,b'})
    assert in_kubernetes.arguments == {'cluster_detection_method': 'gketpu'}


@pytest.mark.parametrize(
    ('starts', 'parts', 'expected'),
    [
        ([0, 1], 4, Host(0, 2)),
        ([2, 3], 4, Host(1, 2)),
        ([1], 2, Host(1, 2)),
        ([0], 1, Host(0, 1)),  # of processes that differ along `tensor` alone, each loads all
        ([0, 2], 4, None),
    ],
)
def test_host_loads_the_rows_of_its_devices(monkeypatch, starts, parts, expected):
    def rows(shape):
        return {device: (slice(start, start + 1),) for device, start in enumerate(2 * starts)}

    sharding = SimpleNamespace(addressable_devices_indices_map=rows)
    monkeypatch.setattr(to_device, 'batch_sharding', lambda mesh: sharding)
    mesh = SimpleNamespace(shape={'data': parts, 'fsdp': 1, 'tensor': 2})
    if expected is None:
        with pytest.raises(UserError, match=r'parts \[0, 2\] of the batch'):
            to_device.find_host(mesh)
    else:
        assert to_device.find_host(mesh) == expected


@pytest.mark.parametrize('count', [1, 2])
def test_one_of_several_that_fails_does_not_wait_for_the_others(tmp_path, monkeypatch, count):
    def fail(trainer):
        raise UserError('the disk is full')

    monkeypatch.setattr(processes, 'has_left_threads', False)
    monkeypatch.setattr(Trainer, '_run', fail)
    monkeypatch.setattr(jax, 'process_count', lambda: count)
    monkeypatch.setattr(jax, 'process_index', lambda: count - 1)
    trainer = object.__new__(Trainer)
    trainer._workdir, trainer._take_over = tmp_path / 'run', False
    with pytest.raises(UserError, match='the disk is full'):
        trainer.run()
    assert processes.has_left_threads == (count > 1)


def test_hang_is_reported_once_with_the_stacks(capfd, caplog):
    caplog.set_level(logging.WARNING)
    release = threading.Event()
    threading.Thread(target=release.wait, name='waits for a batch', daemon=True).start()
    with watch(0.5, 60) as watchdog:
        watchdog.alive('step 7')
        deadline = time.monotonic() + 20
        while not caplog.messages and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1.5)
    release.set()
    (message,) = caplog.messages
    assert 'Process 0 of 1 on host' in message and 'in step 7' in message
    stacks = capfd.readouterr().err
    assert 'test_distributed.py' in stacks and 'in wait' in stacks
