"""Whole runs, each in its own process: the commands of users, and the files that a run leaves."""

import csv
import functools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from python_process import run_python

from vivit_jax.weights.load import load_checkpoint

ROOT = Path(__file__).parents[2]

TINY = [
    '--config=configs/kinetics400_fe.py:runlocal',
    '--config.data.synthetic.num_train=24',
    '--config.data.synthetic.num_val=7',
    '--config.data.synthetic.num_test=5',
    '--config.data.synthetic.num_frames=10',
    '--config.train.num_steps=12',
    '--config.train.warmup_steps=2',
    '--config.train.checkpoint_every_steps=3',
    '--config.eval.every_steps=6',
]
NO_WORKERS = '--config.data.num_workers=0'  # starting them takes seconds


@pytest.fixture
def command(tmp_path, cache_dir):
    """Makes the command line of a tiny run in `workdir`."""
    return functools.partial(command_in, tmp_path, cache_dir)


def command_in(folder, cache_dir, workdir, *more):
    cache = f'--config.data.cache_dir={cache_dir}'
    return [
        sys.executable,
        '-m',
        'vivit_jax.main',
        f'--workdir={folder / workdir}',
        *TINY,
        cache,
        *more,
    ]


@pytest.fixture(scope='module')
def finished(tmp_path_factory, cache_dir):
    """The folder of a finished run, and what it logged; copy the folder to change it."""
    folder = tmp_path_factory.mktemp('finished')
    done = run(command_in(folder, cache_dir, 'run'))
    assert done.returncode == 0, done.stderr
    return folder / 'run', done.stderr


def run(command, **kwargs):
    return run_python(command, **kwargs)


def steps_of(workdir):
    lines = (workdir / 'metrics.jsonl').read_text().splitlines()
    return [json.loads(line)['step'] for line in lines]


def children_of(pid):
    found = []
    for stat in Path('/proc').glob('[0-9]*/stat'):
        try:
            fields = stat.read_text().rsplit(')', 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def is_running(pid):
    try:
        return Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0] != 'Z'
    except OSError:
        return False


def wait_for(condition, timeout_sec=120):
    deadline = time.monotonic() + timeout_sec
    while not condition():
        assert time.monotonic() < deadline, 'nothing happened for too long'
        time.sleep(0.05)


def has_step(workdir, step):
    def check():
        try:
            return step in steps_of(workdir)
        except (OSError, json.JSONDecodeError):  # no file yet, or a line is being written
            return False

    return check


@pytest.mark.slow
def test_run_leaves_everything_that_the_readme_promises(finished):
    workdir, log = finished
    names = {path.name for path in workdir.iterdir()}
    assert names >= {'config.json', 'command.txt', 'versions.json', 'label_map.txt', 'checkpoints'}
    assert steps_of(workdir) == list(range(1, 13))
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    assert [line['step'] for line in lines if 'val/acc1' in line] == [6, 12]
    assert lines[0].keys() >= {'perf/step_time_ms', 'perf/data_wait_ms', 'train/lr'}
    result = json.loads((workdir / 'evaluation' / 'test_2x3_step12.json').read_text())
    logits = np.load(workdir / 'evaluation' / 'test_2x3_step12.npz')
    assert logits['logits'].shape == (5, 6, 8)
    # The saved logits alone give the printed accuracy.
    merged = logits['logits'].mean(1).argmax(1)
    assert result['test/acc1@2x3'] == pytest.approx(np.mean(merged == logits['labels']))
    assert '2x3 views' in log
    assert f'{workdir / "best"} ' in log and (workdir / 'best' / 'card').exists()
    assert log.splitlines()[-1].split(' ', 1)[1] in (workdir / 'log.txt').read_text()


@pytest.mark.slow
def test_training_videos_alone_are_enough(tmp_path, synthetic_folder):
    flags = [TINY[0], f'--workdir={tmp_path / "run"}', '--config.data.source=csv', NO_WORKERS]
    flags += [f'--config.data.train_csv={synthetic_folder}/train.csv']
    flags += ['--config.train.num_steps=1', '--config.train.warmup_steps=0']
    done = run([sys.executable, '-m', 'vivit_jax.main', *flags])
    assert done.returncode == 0, done.stderr
    assert 'Trained, but not tested: there are no other videos' in done.stderr
    assert (tmp_path / 'run/checkpoints/1').exists()


@pytest.mark.slow
def test_two_heads_from_a_csv_to_predictions(tmp_path, synthetic_folder):
    heads = {'motion': 8, 'sprite': 4}
    csv = tmp_path / 'csv'
    csv.mkdir()
    for split in ('train', 'val'):
        lines = (synthetic_folder / f'{split}.csv').read_text().splitlines()
        assert lines[0] == 'video_path,label,sprite'
        lines[0] = 'video_path,motion,sprite'
        (csv / f'{split}.csv').write_text('\n'.join(lines))
    workdir = tmp_path / 'run'
    flags = [f'--config.data.{split}_csv={csv}/{split}.csv' for split in ('train', 'val')]
    flags += [f'--config.data.root={synthetic_folder}', '--config.data.source=csv']
    flags += [f'--config.data.label_columns={head}' for head in heads]
    flags += ['--config.train.num_steps=8', '--config.train.warmup_steps=2']
    flags += ['--config.eval.every_steps=4', '--config.train.checkpoint_every_steps=4', NO_WORKERS]
    done = run([sys.executable, '-m', 'vivit_jax.main', TINY[0], f'--workdir={workdir}', *flags])
    assert done.returncode == 0, done.stderr
    assert "{'motion': 8, 'sprite': 4} classes" in done.stderr
    assert 'action top-1' in done.stderr and '  sprite top-1' in done.stderr

    for head, size in heads.items():
        assert len((workdir / f'label_map_{head}.txt').read_text().splitlines()) == size
    lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    names = {f'{head}/{name}' for head in heads for name in ('loss', 'acc1')} | {'loss', 'acc1'}
    for line in lines:
        assert line.keys() >= {f'train/{name}' for name in names}
        losses = [line[f'train/{head}/loss'] for head in heads]
        assert line['train/loss'] == pytest.approx(np.mean(losses))
    validated = [line for line in lines if 'val/acc1' in line]
    assert [line['step'] for line in validated] == [4, 8]
    for line in validated:
        assert line.keys() >= {f'val/{head}/mean_class_acc' for head in heads}
        assert line['val/acc1'] <= min(line[f'val/{head}/acc1'] for head in heads)

    # The saved logits alone give the printed accuracies.
    result = json.loads((workdir / 'evaluation' / 'val_2x3_step8.json').read_text())
    saved = np.load(workdir / 'evaluation' / 'val_2x3_step8.npz')
    merged = {head: saved[f'{head}/logits'].mean(1) for head in heads}
    right = {head: merged[head].argmax(1) == saved[f'{head}/labels'] for head in heads}
    for head in heads:
        assert saved[f'{head}/logits'].shape == (8, 6, heads[head])
        assert result[f'val/{head}/acc1@2x3'] == pytest.approx(right[head].mean())
    assert result['val/acc1@2x3'] == pytest.approx((right['motion'] & right['sprite']).mean())

    video = synthetic_folder / 'val' / '00000.mp4'
    predict = [sys.executable, '-m', 'vivit_jax.predict', f'--checkpoint={workdir}', '--json']
    predicted = run([*predict, '--top_k=3', str(video)])
    assert predicted.returncode == 0, predicted.stderr
    line = json.loads(predicted.stdout)
    best = {head: entries[0] for head, entries in line['heads'].items()}
    assert line['top'][0]['label'] == f'{best["motion"]["label"]} + {best["sprite"]["label"]}'
    product = best['motion']['score'] * best['sprite']['score']
    assert line['top'][0]['score'] == pytest.approx(product, rel=1e-5)

    # Another number of heads is another model.
    evaluate = [sys.executable, '-m', 'vivit_jax.main', TINY[0], f'--workdir={workdir}']
    other = run([*evaluate, '--mode=evaluate', *flags, '--config.data.label_columns=third'])
    assert other.returncode == 2 and 'third' in other.stderr


@pytest.mark.slow
def test_killed_run_goes_on_bit_for_bit(tmp_path, command, finished):
    workdir = tmp_path / 'killed'
    again = command('killed', '--config.eval.test_at_end=False')
    for step in (4, 8):
        process = subprocess.Popen(again, cwd=ROOT, stderr=subprocess.PIPE)
        wait_for(has_step(workdir, step))
        workers = children_of(process.pid)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert workers
        wait_for(lambda pids=workers: not any(map(is_running, pids)), timeout_sec=20)
    last = run(again)
    assert last.returncode == 0, last.stderr
    assert 'Going on from step' in last.stderr
    assert steps_of(workdir) == list(range(1, 13))
    left, right = (
        load_checkpoint(folder / 'checkpoints' / '12')[1] for folder in (finished[0], workdir)
    )
    jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.mark.slow
def test_ctrl_c_saves_and_exits(tmp_path, command):
    workdir = tmp_path / 'stopped'
    endless = command('stopped', '--config.train.num_steps=100000')
    process = subprocess.Popen(endless, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    wait_for(has_step(workdir, 4))
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, log
    step = steps_of(workdir)[-1]
    assert f'Saved step {step}' in log
    assert (workdir / 'checkpoints' / str(step)).is_dir()


@pytest.mark.slow
def test_finished_run_may_be_given_again(tmp_path, command, finished):
    shutil.copytree(finished[0], tmp_path / 'run')
    flags = ['--config.eval.test_at_end=False', NO_WORKERS]
    done = run(command('run', *flags))
    assert done.returncode == 0, done.stderr
    assert 'Differs from the run so far, and may: eval.test_at_end' in done.stderr
    assert steps_of(tmp_path / 'run') == list(range(1, 13))
    # It may become longer, and the run folder knows everything else.
    longer = [f'--resume={tmp_path / "run"}', '--config.train.num_steps=14', *flags]
    done = run([sys.executable, '-m', 'vivit_jax.main', *longer])
    assert done.returncode == 0, done.stderr
    assert 'Going on from step 12' in done.stderr
    assert steps_of(tmp_path / 'run') == list(range(1, 15))
    assert re.search('run/last (is|are) step 14', done.stderr)
    assert 'All 12 steps are done' not in done.stderr
    log = (tmp_path / 'run' / 'log.txt').read_text()
    assert 'All 12 steps are done' in log
    assert log.count('Data: 24 train') == 3
    assert 'The run becomes longer' in log


def start_processes(command, port_offset):
    """Starts two processes of two devices each that train together."""
    address = f'localhost:{10000 + (os.getpid() + port_offset) % 20000}'
    processes = []
    for index in range(2):
        environment = {
            **os.environ,
            'XLA_FLAGS': '--xla_force_host_platform_device_count=2',
            'JAX_COORDINATOR_ADDRESS': address,
            'JAX_NUM_PROCESSES': '2',
            'JAX_PROCESS_ID': str(index),
        }
        keywords = {'cwd': ROOT, 'env': environment, 'stderr': subprocess.PIPE, 'text': True}
        processes.append(subprocess.Popen(command, **keywords))
    return processes


@pytest.mark.slow
def test_more_devices_and_processes_compute_the_same(tmp_path, command, finished):
    processes = start_processes(command('many', NO_WORKERS, '--config.parallel.fsdp=4'), 2)
    logs = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], logs
    lines = [
        [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]
        for folder in (finished[0], tmp_path / 'many')
    ]
    for left, right in zip(*lines, strict=True):
        names = [name for name in left if name.startswith(('train/', 'val/loss'))]
        assert {name: left[name] for name in names} == pytest.approx(
            {name: right[name] for name in names}, rel=1e-3
        )
    results = [
        np.load(folder / 'evaluation' / 'test_2x3_step12.npz')
        for folder in (finished[0], tmp_path / 'many')
    ]
    np.testing.assert_array_equal(results[0]['labels'], results[1]['labels'])
    np.testing.assert_allclose(results[0]['logits'], results[1]['logits'], atol=1e-3)


@pytest.mark.slow
def test_processes_stop_together_and_end_when_one_is_lost(tmp_path, command):
    workdir = tmp_path / 'run'
    endless = command('run', NO_WORKERS, '--config.train.num_steps=100000')
    endless += ['--config.eval.every_steps=100000', '--config.train.checkpoint_every_steps=5']
    endless.append('--config.parallel.lost_sec=10')
    processes = start_processes(endless, 100)
    wait_for(has_step(workdir, 4))
    processes[1].terminate()
    logs = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [128 + signal.SIGTERM] * 2, logs
    step = steps_of(workdir)[-1]
    assert all(f'Saved step {step};' in log for log in logs)

    processes = start_processes(endless, 200)
    wait_for(has_step(workdir, step + 6))
    processes[1].kill()
    processes[1].communicate()
    _, log = processes[0].communicate(timeout=60)
    assert processes[0].returncode not in (0, 2)
    assert f'Going on from step {step} of' in log
    assert 'start all of them again with the same command' in log or 'Error: process 0 of 2' in log
    # Every step was written once, and the newest checkpoint is whole.
    steps = steps_of(workdir)
    assert steps == sorted(set(steps))
    assert load_checkpoint(workdir)


@pytest.mark.slow
def test_non_finite_loss_stops_and_names_the_batch(tmp_path, command):
    explodes = [NO_WORKERS, '--config.train.learning_rate=1e30', '--config.train.clip_norm=0.0']
    done = run(command('nan', *explodes))
    assert done.returncode == 2
    assert 'Traceback' not in done.stderr
    message = done.stderr[done.stderr.index('Error: ') :]
    for part in ('step ', 'not finite', 'gradient norm', 'learning rate', '.mp4'):
        assert part in message
    # The command that the message gives can be followed.
    python, *advised = shlex.split(message.splitlines()[-1])
    assert python == 'python' and f'--workdir={tmp_path / "nan-lower"}' in advised
    shown = run([sys.executable, *advised, '--mode=show'])
    assert shown.returncode == 0, shown.stderr
    for line in (r'train\.learning_rate +1e\+29', r'train\.clip_norm +1\.0'):
        assert re.search(line, shown.stdout)
    # Checkpoints that were saved before have finite values only.
    for step in (tmp_path / 'nan' / 'checkpoints').glob('[0-9]*'):
        variables = load_checkpoint(step)[1]
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(variables))


@pytest.mark.slow
def test_a_folder_for_each_class_is_split_trained_and_tested(tmp_path, synthetic_folder):
    with (synthetic_folder / 'train.csv').open(newline='') as file:
        for row in csv.DictReader(file):
            folder = tmp_path / 'videos' / row['label']
            folder.mkdir(parents=True, exist_ok=True)
            (folder / Path(row['video_path']).name).symlink_to(synthetic_folder / row['video_path'])
    flags = [*TINY, NO_WORKERS, '--config.data.source=csv', f'--config.data.root={folder.parent}']
    flags += ['--config.train.num_steps=2', '--config.train.warmup_steps=1']
    workdir = tmp_path / 'run'
    command = [sys.executable, '-m', 'vivit_jax.main', f'--workdir={workdir}', *flags]
    done = run([*command, '--config.seed=3'])
    assert done.returncode == 0, done.stderr
    val = (workdir / 'val_videos.csv').read_text()
    (result,) = (workdir / 'evaluation').glob('*.json')
    assert json.loads(result.read_text())['videos'] == len(val.splitlines()) - 1 == 8
    done = run([*command, '--config.seed=4', '--mode=evaluate'])
    assert 'val_videos.csv no longer come out' in done.stderr
    checked = f'--output={tmp_path}/checked'
    done = run([*command[:2], 'vivit_jax.prepare', 'check', *flags, '--config.seed=3', checked])
    assert (tmp_path / 'checked' / 'val_ok.csv').read_text() == val


@pytest.mark.slow
def test_broken_videos_are_replaced_in_training_and_wrong_in_evaluation(tmp_path, synthetic_folder):
    root = tmp_path / 'videos'
    shutil.copytree(synthetic_folder, root)
    # All videos are of one class, so that every video that can be decoded is right.
    (tmp_path / 'classes.txt').write_text('moves\nrests\n')
    for split, count in (('train', 24), ('val', 8)):
        lines = [f'{split}/{i:05d}.mp4,moves\n' for i in range(count)]
        (root / f'{split}.csv').write_text('video_path,label\n' + ''.join(lines))
    for name in ('train/00003.mp4', 'val/00002.mp4'):
        (root / name).write_bytes(b'not a video')
    workdir = tmp_path / 'run'
    flags = [f'--config.data.{split}_csv={root}/{split}.csv' for split in ('train', 'val')]
    runlocal = [NO_WORKERS, '--config.data.source=csv', '--config.train.num_steps=6']
    runlocal += ['--config.train.warmup_steps=1', '--config.data.max_bad_fraction=0.2']
    runlocal += [f'--config.data.label_map={tmp_path}/classes.txt']
    base = [sys.executable, '-m', 'vivit_jax.main', TINY[0], f'--workdir={workdir}']
    done = run([*base, *flags, *runlocal])
    assert done.returncode == 0, done.stderr
    listed = (workdir / 'bad_videos.csv').read_text().splitlines()
    assert len(listed) == 2 and 'train/00003.mp4' in listed[1]
    (result,) = (workdir / 'evaluation').glob('*.json')
    result = json.loads(result.read_text())
    assert [Path(name).name for name in result['failures']] == ['00002.mp4']
    assert result['videos'] == 8 and result['val/acc1@2x3'] == 7 / 8
