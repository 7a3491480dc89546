"""The messages of commands for the mistakes of users."""

import re
import sys
from pathlib import Path

import pytest
from python_process import run_python

import vivit_jax

ROOT = Path(__file__).parents[1]


def run(*command, cwd=ROOT):
    return run_python([sys.executable, *command], cwd=cwd)


def fails(tmp_path, *flags, config='configs/custom.py'):
    done = run('-m', 'vivit_jax.main', f'--config={config}', f'--workdir={tmp_path}/run', *flags)
    assert done.returncode == 2, done.stderr
    assert 'Traceback' not in done.stderr
    return done.stderr


@pytest.fixture
def csv(synthetic_folder):
    return [f'--config.data.{s}_csv={synthetic_folder / s}.csv' for s in ('train', 'val')]


def test_overview_names_versions_and_commands():
    done = run('-m', 'vivit_jax')
    assert done.returncode == 0, done.stderr
    for part in (
        vivit_jax.__version__,
        'JAX',
        'FFmpeg',
        'vivit_jax.main',
        'vivit_jax.predict',
        'vivit_jax.summary',
    ):
        assert part in done.stdout


def test_checkpoint_to_train_from_is_no_silent_start_from_scratch(tmp_path):
    assert '--config.init_from=w.npz' in fails(tmp_path, '--checkpoint=w.npz')


def test_missing_data_says_where_it_looked_and_how_to_start_without(tmp_path):
    message = fails(tmp_path, config='configs/kinetics400_fe.py')
    assert 'set data.root to the folder of the videos of kinetics400' in message
    assert ':runlocal' in message
    message = fails(tmp_path, '--config.data.root=lost', config='configs/kinetics400_fe.py')
    assert f'there is no folder {ROOT / "lost"}' in message
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize(
    ('flag', 'message'),
    [
        ('--config.model.num_heads=3', 'num_heads=3 must divide'),
        ('--config.preprocessing.num_frames=24', r'frames=24 .* multiple of 16'),
        ('--config.model.pool=max', 'pool'),
        ('--config.model.num_classes=5', 'num_classes=5'),
        ('--config.eval.views=4', "views='4'"),
        ('--config.train.optimizer=lamp', 'lamb'),
        ("--config.train.optimizer_keywords={'bb': 1}", "no 'bb'"),
        ('--config.train.schedule=exponential', 'cosine, linear, constant, step'),
        ('--config.augment.flip=2.0', 'from 0 to 1'),
        ('--config.train.batch_size=0', 'at least 1'),
        ('--config.eval.merge=mean', 'probabilities'),
        ('--config.preprocessing.crop_size=100', 'short_side=72'),
        ('--config.data.source=mp4', 'synthetic'),
    ],
)
def test_settings_that_do_not_fit_are_named(tmp_path, csv, flag, message):
    assert re.search(message, fails(tmp_path, *csv, flag))


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--seeds=0,0'], '--seeds=0,0 must be different whole numbers'),
        (['--seeds=0', '--mode=show'], '--mode=train and --mode=evaluate'),
        (['--seeds=0', '--config.seed=1'], 'both say the seed'),
        (['--seeds=0', '--mode=evaluate', '--checkpoint=w.npz'], 'leave out --checkpoint'),
        (['--profile_steps=5'], '--profile_steps=5 must be the first and the last step'),
        (['--profile_steps=1,2', '--mode=evaluate'], 'for a training of one seed'),
    ],
)
def test_flags_that_do_not_fit_are_named(tmp_path, flags, message):
    assert message in fails(tmp_path, *flags, config='configs/demo.py')


def test_batch_size_must_divide_among_devices(tmp_path, csv, monkeypatch):
    monkeypatch.setenv('XLA_FLAGS', '--xla_force_host_platform_device_count=3')
    message = fails(tmp_path, *csv)
    assert 'train.batch_size=16' in message and '3 devices' in message and '15' in message


def test_unexpected_word_is_explained(tmp_path, csv):
    assert "['train.batch_size=8']" in fails(tmp_path, *csv, 'train.batch_size=8')


def test_evaluation_without_a_run_names_the_folder(tmp_path, csv):
    assert str(tmp_path / 'run') in fails(tmp_path, *csv, '--mode=evaluate')


def test_ci_runs_the_command_of_the_readme():
    command = re.search(r'^(python3 -m venv .* -m pytest)$', (ROOT / 'README.md').read_text(), re.M)
    assert command[1] in (ROOT / '.ci/run').read_text().splitlines()
