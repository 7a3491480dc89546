"""The benchmark of accelerators runs anywhere, and no failure stops it."""

import collections
import importlib.metadata
import importlib.util
import json
import math
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from vivit_jax.config import load
from vivit_jax.layers.attention_kernels import IMPLEMENTATIONS
from vivit_jax.models.registry import list_models

ROOT = Path(__file__).parents[2]
PACKAGES = ('jax', 'flax', 'optax', 'ml-collections', 'numpy', 'einops', 'chex')  # that it needs

# A sitecustomize.py that hides packages from a program and from all that it starts.
HIDE = """
import sys

class Hidden:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        hidden = name.split('.')[0] in {names!r}
        return None if hidden else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Hidden, sys.meta_path)
"""


def _requirements(*packages):
    """Some packages and their requirements, if these are installed."""
    found, queue = set(), list(packages)
    while queue:
        name = re.sub(r'[-_.]+', '-', queue.pop()).lower()
        try:
            required = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        if name not in found:
            found.add(name)
            queue += [re.match(r'[\w.-]+', x)[0] for x in required if 'extra ==' not in x]
    return found


def _run(folder, *args, packages=PACKAGES):
    """Runs the benchmark with some packages and their requirements, and with no others."""
    allowed = _requirements(*packages)
    hidden = sorted(
        name
        for name, owners in importlib.metadata.packages_distributions().items()
        if not allowed & {re.sub(r'[-_.]+', '-', owner).lower() for owner in owners}
        and name != 'vivit_jax'
    )
    assert 'av' in hidden and 'grain' in hidden
    (folder / 'sitecustomize.py').write_text(HIDE.format(names=[*hidden, 'orbax']))
    command = [sys.executable, 'benchmarks/accelerator.py', '--tiny', f'--output={folder}/result']
    environment = {**os.environ, 'PYTHONPATH': str(folder)}
    done = subprocess.run(
        [*command, *args], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (folder / 'result.jsonl').read_text().splitlines()]
    sections = collections.defaultdict(list)
    for row in rows:
        sections[row['section']].append(row)
    return sections, done.stdout


def test_needs_few_packages_and_says_that_pytorch_is_missing(tmp_path):
    sections, printed = _run(tmp_path, '--sections=a,d')
    assert {row['status'] for row in sections['a']} == {'measured'}
    assert {row['status'] for row in sections['d']} == {'left out'}
    assert 'needs PyTorch: pip install torch transformers' in printed


@pytest.mark.slow
def test_all_sections_have_all_their_rows(tmp_path):
    sections, printed = _run(tmp_path, packages=(*PACKAGES, 'torch', 'transformers'))
    rows = [row for section in sections.values() for row in section]
    missing = [row for row in rows if row['status'] != 'measured']
    reasons = {'cudnn: needs an NVIDIA GPU', 'pallas: needs a GPU or TPU'}
    if not importlib.util.find_spec('torch'):
        reasons.add('needs PyTorch: pip install torch transformers')
    assert {(row['status'], row['reason']) for row in missing} == {('left out', x) for x in reasons}

    measured = collections.defaultdict(list)
    for row in rows:
        if row['status'] == 'measured':
            measured[row['section']].append(row)
    assert sorted(measured) == ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'machine']
    for row in rows:
        for key in ('ms', 'tflops', 'gb_per_s', 'clips_per_s', 'fraction', 'compile_s', 'gmac'):
            assert row.get(key, 1) > 0, row
        assert math.isfinite(row.get('loss', 0))
    assert {row['implementation'] for row in sections['b']} >= set(IMPLEMENTATIONS) - {'auto'}
    assert all('fraction' in row for section in 'cdg' for row in measured[section])
    models = [(row['model'], row['size'], row['program']) for row in measured['c']]
    assert len(models) == len(set(models)) == 10
    assert {row['name'] for row in measured['d']} == {
        f'{source}, {mode}'
        for source in ('huggingface', 'vivit_jax.torch')
        for mode in ('eager', 'torch.compile')
    }
    assert 0 < measured['e'][1]['share'] < 1
    for row in measured['f']:
        assert len(row['losses']) == 50 and row['losses'][-1] < 0.1 * row['losses'][0]
    assert measured['f'][1]['difference'] < 10
    assert [row['model'] for row in measured['g']] == list_models()
    tables = (tmp_path / 'result.md').read_text()
    assert tables.count('### ') == 7 and tables.count('### ') <= printed.count('### ')


@pytest.fixture
def sections(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / 'benchmarks')


def test_augments_as_the_published_recipe_does(sections):
    from accelerator_sections import models

    recipe = runpy.run_path(str(ROOT / 'configs/epic_kitchens100_fe_large.py'))['get_config']()
    assert load.augmentation(recipe) == models.EPIC


@pytest.mark.parametrize('per_clip', [0.3, 1.4, 5.0])
@pytest.mark.parametrize('guess', [0.5, 1.4, 4.0])
def test_finds_a_batch_that_fills_the_memory(sections, monkeypatch, guess, per_clip):
    from accelerator_sections import training

    compiled = []

    def compile_step(self, batch):
        compiled.append(batch)
        return training.Program(None, 1.0, 0.01 + per_clip * batch)

    monkeypatch.setattr(training.Training, 'compile_step', compile_step)
    monkeypatch.setattr(training, 'memory_gib', {'bytes_limit': 80.0}.get)
    tiny = training.Training(training.Settings(tiny=True, original=''), 'vivit_fe')
    batch, program = tiny.compile_largest(guess)
    assert program.gib < 80
    assert per_clip * batch > 80 / 2
    assert len(compiled) <= 3


def test_batches_are_halved_only_for_want_of_memory(sections):
    from accelerator_sections.rows import attempt, with_smaller_batches

    tried = []

    def run(batch):
        tried.append(batch)
        if batch > 3:
            raise RuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes')
        if batch == 1:
            raise ValueError('other |\nreason')
        return {'batch': batch}

    assert attempt({'name': 'x'}, with_smaller_batches, 12, run) == {
        'name': 'x',
        'status': 'measured',
        'batch': 3,
    }
    assert tried == [12, 6, 3]
    failed = attempt({'name': 'x'}, with_smaller_batches, 1, run)
    assert failed == {'name': 'x', 'status': 'failed', 'reason': 'ValueError: other / reason'}


TASKS = """
import os, time

def works(settings, rows):
    yield {'name': 'works', 'status': 'measured', 'known': len(rows)}

def dies(settings, rows):
    yield from works(settings, rows)
    os._exit(3)

def hangs(settings, rows):
    yield from works(settings, rows)
    time.sleep(1000)

def raises(settings, rows):
    yield from works(settings, rows)
    raise KeyError('no such thing')
"""


@pytest.mark.parametrize(
    ('function', 'reason'),
    [
        ('dies', 'its process died, exit status 3'),
        ('hangs', 'stopped after 5 s'),
        ('raises', "KeyError: 'no such thing'"),
    ],
)
def test_what_fails_costs_only_its_own_row(sections, monkeypatch, tmp_path, function, reason):
    from accelerator_sections.plan import Settings, Task
    from accelerator_sections.worker import Worker

    (tmp_path / 'some_tasks.py').write_text(TASKS)
    monkeypatch.syspath_prepend(tmp_path)

    def run(worker, function, limit):
        task = Task('a', function, f'some_tasks:{function}', (), 1, 'a')
        return list(worker.run(task, limit))

    worker = Worker('jax', Settings(tiny=True, original=''), [])
    assert [row['known'] for row in run(worker, 'works', 60)] == [0]
    assert worker.is_sound
    first, last = run(worker, function, 5 if function == 'hangs' else 60)
    assert first['status'] == 'measured' and first['known'] == 1
    assert last == {'name': function, 'status': 'failed', 'reason': reason}
    assert not worker.is_sound  # the next task gets another process
    worker.close()
