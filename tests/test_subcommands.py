"""`vivit_jax COMMAND`, which is `python -m vivit_jax COMMAND`, runs the module of the command."""

import re
import runpy
import sys

import pytest
from python_process import run_python

from vivit_jax import __main__ as commands


def run(*words):
    return run_python([sys.executable, '-m', *words])


def test_list_of_commands_has_a_line_for_each():
    shown = re.findall(r'^  python -m ([\w.]+)(?:.*(--mode=\w+))?', commands._HELP, re.M)
    assert [[x for x in line if x] for line in shown] == list(commands.COMMANDS.values())
    [sentence] = re.findall(r'In short: vivit_jax (.*?), with', ' '.join(commands._HELP.split()))
    assert re.split(', | or ', sentence) == list(commands.COMMANDS)


@pytest.mark.parametrize('name', commands.COMMANDS)
def test_command_passes_its_arguments_on(name, monkeypatch):
    module, *defaults = commands.COMMANDS[name]
    seen = []
    monkeypatch.setattr(
        runpy, 'run_module', lambda *args, **kwargs: seen.append((args, kwargs, sys.argv[1:]))
    )
    monkeypatch.setattr(sys, 'argv', ['vivit_jax', name, '--one', 'two'])
    commands.main()
    kwargs = {'run_name': '__main__', 'alter_sys': True}
    assert seen == [((module,), kwargs, [*defaults, '--one', 'two'])]


def test_help_and_status_are_those_of_the_module():
    for words in (['--help'], ['--top_k=0']):
        short, long = run('vivit_jax', 'predict', *words), run('vivit_jax.predict', *words)
        assert (short.returncode, short.stdout, short.stderr) == (
            long.returncode,
            long.stdout,
            long.stderr,
        )
        assert short.returncode == (0 if words == ['--help'] else 2)


def test_evaluate_tests_a_checkpoint(tmp_path):
    done = run(
        'vivit_jax', 'evaluate', '--config=configs/demo.py:ctn', f'--workdir={tmp_path}/lost'
    )
    assert done.returncode == 2
    assert f'there is no file or folder {tmp_path}/lost' in done.stderr


@pytest.mark.parametrize(
    ('word', 'message'),
    [
        ('trian', "there is no command 'trian'; did you mean 'train'?"),
        ('--config=demo', "there is no command '--config=demo'; known: ['train', 'evaluate',"),
    ],
)
def test_unknown_command_offers_others(word, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['vivit_jax', word])
    with pytest.raises(SystemExit) as exited:
        commands.main()
    assert exited.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize('word', ['-h', '--help'])
def test_help_lists_the_commands(word, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['vivit_jax', word])
    commands.main()
    assert capsys.readouterr().out.strip() == commands._HELP
