"""A wheel, built from an sdist, works without a checkout: the demo starts from another folder."""

import email
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip('pip', reason='builds with pip')

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


def run(*command, **kwargs):
    done = subprocess.run(command, capture_output=True, text=True, **kwargs)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def pip(*words, **kwargs):
    return run(sys.executable, '-m', 'pip', *words, **kwargs)


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """The wheel, built from a copy of the checkout, in which building leaves files."""
    folder = tmp_path_factory.mktemp('wheel')
    source = folder / 'source'
    for name in ('vivit_jax', 'configs'):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns('__pycache__'))
    for name in ('setup.py', 'pyproject.toml', 'README.md', 'LICENSE'):
        shutil.copy(ROOT / name, source)
    code = 'import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])'
    run(sys.executable, '-c', code, folder, cwd=source)
    [sdist] = folder.glob('*.tar.gz')
    pip('wheel', '--no-deps', '--no-index', '--no-build-isolation', '--wheel-dir', folder, sdist)
    [path] = folder.glob('*.whl')
    return path


@pytest.fixture(scope='module')
def installed(wheel):
    """A folder with the installed package, and the environment in which Python finds it."""
    folder = wheel.parent / 'installed'
    pip('install', '--no-deps', '--no-index', '--target', folder, wheel)
    return folder, {**os.environ, 'PYTHONPATH': str(folder)}


def test_wheel_holds_the_package_and_the_configs_only(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        [metadata] = [name for name in names if name.endswith('dist-info/METADATA')]
        described = email.message_from_bytes(file.read(metadata))
    packed = {name for name in names if '.dist-info/' not in name}
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / 'vivit_jax').rglob('*.py')}
    configs = {f'vivit_jax/{path.relative_to(ROOT)}' for path in (ROOT / 'configs').glob('*.py')}
    assert packed == modules | configs | {'vivit_jax/py.typed'}
    assert any(name.endswith('licenses/LICENSE') for name in names)
    assert described['Requires-Python'] == '>=3.11'
    assert described.get_payload().startswith('# vivit_jax')


def test_demo_starts_from_another_folder(installed, tmp_path, cache_dir):
    folder, env = installed
    code = 'import vivit_jax; print(vivit_jax.__file__)'
    found = run(sys.executable, '-c', code, cwd=tmp_path, env=env).stdout.strip()
    assert found == str(folder / 'vivit_jax/__init__.py')
    done = run(
        folder / 'bin/vivit_jax',
        'train',
        '--config=demo',
        '--config.train.num_epochs=None',
        '--config.train.num_steps=2',
        '--config.train.warmup_epochs=0',
        '--config.train.batch_size=8',
        '--config.eval.batch_size=8',
        '--config.data.num_workers=1',
        '--config.model.num_layers=1',
        '--config.model.temporal_num_layers=1',
        '--config.eval.views=1x1',
        '--config.data.synthetic.num_train=16',
        '--config.data.synthetic.num_val=8',
        '--config.data.synthetic.num_test=8',
        f'--config.data.cache_dir={cache_dir}',
        cwd=tmp_path,
        env=env,
    )
    assert 'step 2/2: loss' in done.stderr and 'test, 1x1 views' in done.stderr
    assert (tmp_path / 'runs/demo/checkpoints/2').is_dir()


def test_config_with_an_argument_is_found(installed, tmp_path):
    folder, env = installed
    words = ['--config=kinetics400_fe:runlocal', '--mode=show']
    done = run(folder / 'bin/vivit_jax', 'train', *words, cwd=tmp_path, env=env)
    assert 'vivit_fe' in done.stdout
