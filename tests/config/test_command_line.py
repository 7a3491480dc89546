import dataclasses
import sys
from pathlib import Path

import pytest
from python_process import run_python

from vivit_jax.config.mistakes import _ALSO_CALLED, explain
from vivit_jax.config.schema import config_keys
from vivit_jax.models.registry import list_models
from vivit_jax.video.synthetic import SyntheticVideos

TINY_VIDEOS = SyntheticVideos(
    num_train=24, num_val=8, num_test=8, num_frames=10, height=32, width=40
)
ROOT = Path(__file__).parents[2]


def _run(*args, folder):
    """Runs a command line with a mistake, which must not train; returns exit status and stderr."""
    command = [sys.executable, '-m', 'vivit_jax.main', f'--workdir={folder / "run"}', *args]
    result = run_python(command)
    assert not (folder / 'run').exists()
    assert result.stdout == ''
    return result.returncode, result.stderr.strip()


@pytest.mark.parametrize(
    ('override', 'near'),
    [
        ('--config.train.batch_sizes=3', 'train.batch_size'),
        ('--config.trian.num_epochs=3', 'train.num_epochs'),
        ('--config.model.nme=3', 'model.name'),
        ('--config.model.stem_chanels=3', 'model.stem_channels'),
    ],
)
def test_unknown_key_is_one_line_with_near_keys(override, near, tmp_path):
    status, message = _run('--config=configs/demo.py', override, folder=tmp_path)
    assert status == 2
    assert len(message.splitlines()) == 1
    assert message.startswith(f'Error: {override}: there is no config key')
    assert f'did you mean {near}' in message


def test_value_of_another_type_names_the_flag(tmp_path):
    override = '--config.train.batch_size=abc'
    status, message = _run('--config=configs/demo.py', override, folder=tmp_path)
    assert status == 2
    assert 'Traceback' not in message
    assert f"{override}: invalid literal for int() with base 10: 'abc'" in message.splitlines()[0]


def test_none_unsets_a_key(tmp_path):
    flags = ['--config=configs/custom.py', '--config.train.num_epochs=None']
    status, message = _run(*flags, folder=tmp_path)
    assert status == 2 and message.startswith('Error: no videos: set data.train_csv')
    flags += ['--config.data.source=synthetic', f'--config.data.cache_dir={tmp_path}']
    flags += [
        f'--config.data.synthetic.{name}={value}'
        for name, value in dataclasses.asdict(TINY_VIDEOS).items()
    ]
    status, message = _run(*flags, folder=tmp_path)
    assert status == 2 and message.endswith('set train.num_epochs or train.num_steps')


def test_none_unsets_a_key_of_the_model(tmp_path):
    flags = ['--config=configs/custom.py:ctn', '--config.model.stem_channels=None']
    status, message = _run(*flags, folder=tmp_path)
    assert status == 2 and message.startswith('Error: no videos: set data.train_csv')


@pytest.mark.parametrize('value', ['3', 'None'])
def test_key_of_another_model_is_named(tmp_path, value):
    override = f'--config.model.stem_channels={value}'
    status, message = _run('--config=configs/demo.py', override, folder=tmp_path)
    of_file = 'the model of configs/demo.py has no such keyword'
    assert (status, message) == (2, f'Error: {override}: {of_file}')


def test_what_cannot_be_unset_says_so(tmp_path):
    flags = ['--config=configs/demo.py', '--config.train.batch_size=None']
    status, message = _run(*flags, folder=tmp_path)
    assert status == 2 and 'train.batch_size needs a value' in message


@pytest.mark.parametrize(
    ('columns', 'classes', 'message'),
    [
        (
            ['verb', 'noun'],
            "{'verb': 8, 'noun': 9}",
            'model.num_classes=9, but there are 4 classes',
        ),
        (
            ["('verb', 'noun')"],
            "{'verb': 8}",
            "model.num_classes={'verb': 8} is for the heads verb",
        ),
        (['motion'], '3', 'model.num_classes=3, but there are 8 classes'),
        (['motion'], 'three', "model.num_classes='three' must be a whole number"),
    ],
)
def test_heads_can_be_given(columns, classes, message, synthetic_folder, tmp_path):
    args = [f'--config.data.label_columns={column}' for column in columns]
    cache = f'--config.data.cache_dir={synthetic_folder.parent}'
    args += [cache, f'--config.model.num_classes={classes}']
    for key, value in vars(TINY_VIDEOS).items():
        args.append(f'--config.data.synthetic.{key}={value}')
    status, found = _run('--config=configs/demo.py', *args, folder=tmp_path)
    assert status == 2
    assert found.splitlines()[-1].startswith(f'Error: {message}')


def test_missing_config_file_is_one_line_that_names_it(tmp_path):
    status, message = _run('--config=configs/no_such.py', folder=tmp_path)
    assert status == 2
    assert len(message.splitlines()) == 1
    assert 'configs/no_such.py' in message


def test_mistake_in_a_config_file_is_not_blamed_on_an_override(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(
        'from vivit_jax.config.schema import default_config\n'
        'def get_config(arg=""):\n'
        '    config = default_config()\n'
        '    config.train.batchsize = 3\n'
        '    return config\n'
    )
    args = (f'--config={path}', '--config.train.batch_size=3')
    status, message = _run(*args, folder=tmp_path)
    assert status == 2
    assert len(message.splitlines()) == 1
    assert 'batchsize' in message
    assert "there is no config key 'train.batch_size'" not in message


@pytest.mark.parametrize(
    ('line', 'number', 'message'),
    [
        ('config.train.lr = 1', 4, "there is no config key 'lr'; did you mean train.learning_rate"),
        ('config.train.batch_size = "a"', 4, "Could not override field 'batch_size'"),
        ('config.train.batch_size = ', 4, 'invalid syntax'),
        ('1 / 0', 4, 'division by zero'),
    ],
)
def test_mistake_in_a_config_file_has_its_line(line, number, message, tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(
        'from vivit_jax.config.schema import default_config\n'
        'def get_config():\n'
        '    config = default_config()\n'
        f'    {line}\n'
        '    return config\n'
    )
    status, found = _run(f'--config={path}', folder=tmp_path)
    assert status == 2
    assert found.startswith(f'Error: {path}, line {number}: {message}')
    assert len(found.splitlines()) == 1


@pytest.mark.parametrize(
    ('override', 'near'),
    [
        ('--config.train.lr=1', 'train.learning_rate'),
        ('--config.img_size=64', 'preprocessing.crop_size'),
        ('--config.train.epochs=3', 'train.num_epochs'),
        ('--config.batch_size=3', 'train.batch_size, eval.batch_size'),
    ],
)
def test_keys_are_found_by_what_they_mean(override, near):
    assert f'did you mean {near}' in explain(['main', '--config=demo', override], KeyError())


def test_every_key_that_has_other_names_exists():
    known = {key for name in list_models() for key in config_keys(name)}
    assert _ALSO_CALLED.keys() <= known


def test_model_of_a_config_is_changed_after_the_colon(tmp_path):
    flags = ['--config=custom', '--config.model.name=vivit_joint']
    status, message = _run(*flags, folder=tmp_path)
    assert status == 2 and message.endswith('--config=custom:vivit_joint')


def test_steps_replace_epochs_of_the_file():
    flags = ['--config=demo', '--config.train.num_steps=80', '--mode=show']
    done = run_python([sys.executable, '-m', 'vivit_jax.main', *flags])
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == 'train.num_steps=80 replaces num_epochs=40.0 of the config'
    assert 'training          80 steps' in done.stdout


def test_size_wins_over_keywords_of_the_file_and_loses_to_keywords_beside_it():
    flags = ['--config.model.size=B/16x2', '--config.model.mlp_dim=99', '--mode=show']
    command = [sys.executable, '-m', 'vivit_jax.main', '--config=configs/custom.py', *flags]
    done = run_python(command)
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip() == (
        'model.size=B/16x2 replaces hidden_size=128, num_layers=4, num_heads=4, '
        'tubelet_size=(16, 8, 8) of the config'
    )
    lines = {line.split()[0]: line.split()[1] for line in done.stdout.splitlines() if line.strip()}
    assert lines['model.mlp_dim'] == '99'
    assert lines['model.hidden_size'] == '768'


@pytest.mark.parametrize('module', ['main', 'predict', 'summary', 'convert', 'prepare'])
def test_help_exits_with_0_and_wrong_flags_with_2(module):
    for flag, status in (('--help', 0), ('--foo=1', 2)):
        done = run_python([sys.executable, '-m', f'vivit_jax.{module}', flag])
        assert done.returncode == status, done.stderr
        assert 'Traceback' not in done.stderr
