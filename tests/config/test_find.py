"""Configs by their names, and the configs of runs."""

import json
import sys
from pathlib import Path

import pytest
from python_process import run_python

from vivit_jax.config import load, saved_run
from vivit_jax.config.command_line import _name_config
from vivit_jax.config.find import find_config
from vivit_jax.config.schema import default_config
from vivit_jax.errors import UserError, near_paths

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ('name', 'argument'),
    [('demo', ''), ('demo:ctn', ':ctn'), ('demo.py', ''), ('configs/demo.py:a,b:c', ':a,b:c')],
)
def test_config_is_found_by_its_name_from_any_folder(name, argument, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == f'{ROOT / "configs" / "demo.py"}{argument}'


def test_a_file_of_the_user_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'configs' / 'demo.py').touch()
    assert find_config('demo') == 'configs/demo.py'
    (tmp_path / 'demo.py').touch()
    assert find_config('demo:ctn') == 'demo.py:ctn'


@pytest.mark.parametrize(
    ('name', 'near'),
    [
        ('dmo', 'did you mean demo'),
        ('configs/kinetics_fe.py', 'did you mean kinetics400_fe'),
        ('nothing_like_it', 'known: custom, demo'),
        ('mine/a.py', 'did you mean mine/b.py'),
    ],
)
def test_config_that_does_not_exist_is_answered_with_near_names(name, near, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine' / 'b.py').touch()
    with pytest.raises(UserError, match=f'there is no config {name.partition(":")[0]}; {near}'):
        find_config(name)


def test_near_paths_start_where_folders_end(tmp_path):
    (tmp_path / 'runs' / 'demo').mkdir(parents=True)
    assert near_paths(tmp_path / 'rums' / 'demo') == f'; did you mean {tmp_path / "runs"}?'
    assert near_paths(tmp_path / 'runs' / 'dem') == f'; did you mean {tmp_path / "runs" / "demo"}?'
    assert near_paths(tmp_path / 'runs' / 'x' / 'y') == f'; {tmp_path / "runs"} holds demo'


@pytest.mark.parametrize('heads', [False, True])
def test_config_of_a_run_is_the_config_that_was_saved(heads, tmp_path):
    config = default_config('ctn')
    config.train.update(num_epochs=3.0, freeze=('a', 'b'), schedule='constant')
    config.train.optimizer_keywords = {'b1': 0.9, 'ns_coeffs': (3.0, -4.0, 2.0)}
    config.augment.flip_swaps = (('left', 'right'),)
    if heads:
        config.data.label_columns = ('verb', 'noun')
        config.model.num_classes = {'verb': 3, 'noun': 4}
    path = tmp_path / 'config.json'
    path.write_text(json.dumps(load.flatten(config)))
    found = saved_run.get_config(str(path))
    assert load.flatten(found) == load.flatten(config)
    assert found.augment.flip_swaps == (('left', 'right'),)
    assert found.is_locked


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{"model.name": "ctn", "train.speed": 3}', r'does not know: train\.speed'),
        ('[]', 'is not the config.json of a run'),
        ('{"a": 1}', 'is not the config.json of a run'),
    ],
)
def test_another_json_file_is_refused(text, message, tmp_path):
    (tmp_path / 'config.json').write_text(text)
    with pytest.raises(UserError, match=message):
        saved_run.get_config(str(tmp_path / 'config.json'))


@pytest.mark.parametrize('flag', ['--resume={}', '--workdir={}', '--config={}/config.json'])
def test_run_folder_tells_its_config(flag, tmp_path):
    config = default_config('vivit_joint')
    config.train.num_steps = 17
    config.model.update(size='Ti/16x2', num_classes=5)
    (tmp_path / 'config.json').write_text(json.dumps(load.flatten(config)))
    command = [sys.executable, '-m', 'vivit_jax.main', '--mode=show', flag.format(tmp_path)]
    done = run_python([*command, '--config.train.batch_size=3'])
    assert done.returncode == 0, done.stderr
    assert f'# {tmp_path}/config.json\n' in done.stdout
    assert 'training          17 steps' in done.stdout
    assert 'of 3 clips' in done.stdout


def test_checkpoint_to_evaluate_tells_its_config(tmp_path):
    (tmp_path / 'config.json').write_text(json.dumps(load.flatten(default_config())))
    words = ['main', '--mode=evaluate', f'--checkpoint={tmp_path}']
    _, config, *rest = _name_config(words)
    assert config == f'--config={saved_run.__file__}:{tmp_path}/config.json'
    assert rest == words[1:]


@pytest.mark.parametrize(
    ('flags', 'message'),
    [
        (['--mode=evaluate', '--checkpoint=configs'], 'configs has no config.json'),
        ([], 'name a config, such as --config=demo, or a run'),
        (['--resume=configs'], 'configs has no config.json'),
        (['--resume=cnfigs'], 'did you mean configs?'),
        (['--resume=configs', '--config=demo'], 'leave out --config'),
    ],
)
def test_run_that_cannot_go_on_says_why(flags, message):
    done = run_python([sys.executable, '-m', 'vivit_jax.main', *flags])
    assert done.returncode == 2
    assert message in done.stderr and len(done.stderr.splitlines()) == 1
