"""Commands, Python code, keys and links in the documentation are valid; nothing is run."""

import argparse
import ast
import functools
import importlib
import json
import re
import runpy
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import grain  # noqa: F401 - defines flags, which must be there before `command_line` restores them
import pytest
from absl import app, flags
from ml_collections import ConfigDict, config_flags

from vivit_jax import __main__ as subcommands
from vivit_jax import create_model, list_models
from vivit_jax.config.load import flatten
from vivit_jax.config.schema import default_config

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / 'README.md',
    ROOT / 'CONTRIBUTING.md',
    ROOT / 'CHANGELOG.md',
    *sorted((ROOT / 'docs').glob('*.md')),
]
FENCED = re.compile(r'^```(\w*)\n(.*?)^```$', re.M | re.S)
INDENTED = re.compile(r'(?<=\n\n)((?: {4}.*\n)+)')
INLINE = re.compile(r'`([^`]+)`')
COMMAND = re.compile(r'(?:\S*/)?(?:python3?|pip) |vivit_jax \w')
SECTIONS = 'augment|data|eval|init|model|preprocessing|train'


def _prose(page: Path) -> str:
    return FENCED.sub('', page.read_text('utf-8'))


def _commands() -> Iterator[str]:
    for page in PAGES:
        blocks = [code for _, code in FENCED.findall(page.read_text('utf-8'))]
        blocks += INDENTED.findall(_prose(page))
        lines = '\n'.join(blocks).replace('\\\n', ' ').splitlines()
        lines += [' '.join(code.split()) for code in INLINE.findall(_prose(page))]
        for line in lines:
            for command in map(str.strip, line.split('&&')):
                if COMMAND.match(command):
                    yield ' '.join(shlex.split(command, comments=True)), command


COMMANDS = dict(_commands())


@pytest.fixture
def command_line(monkeypatch, folder_with_run) -> Iterator[Callable[[str], list[str]]]:
    """Sets the command line of a process without flags; restores its own flags afterwards."""
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT / 'benchmarks'))

    def set_words(command: str) -> list[str]:
        words = shlex.split(command, comments=True)
        output = words.index('>') if '>' in words else len(words)
        name, *words = words[:output]
        words = words[1:] if words[0] == '-m' else words
        if name == 'vivit_jax':
            words = [*subcommands.COMMANDS[words[0]], *words[1:]]
        monkeypatch.setattr(sys, 'argv', words)
        if words[0].startswith('vivit_jax.'):
            monkeypatch.chdir(folder_with_run)
        return words

    known = flags.FLAGS._flags()
    with mock.patch.dict(known):
        for name in list(known):
            if not flags.FLAGS.find_module_defining_flag(name, '').startswith('absl.'):
                del known[name]
        yield set_words


def test_commands_are_found():
    assert len(COMMANDS) > 40
    assert 'python -m vivit_jax.main --config=configs/demo.py --mode=evaluate' in ' '.join(COMMANDS)
    assert any(command.startswith('python benchmarks/') for command in COMMANDS)


@pytest.fixture(scope='module')
def folder_with_run(tmp_path_factory):
    """A folder with the config of a run in `runs/demo`."""
    folder = tmp_path_factory.mktemp('docs')
    (folder / 'runs' / 'demo').mkdir(parents=True)
    text = json.dumps(flatten(default_config()))
    (folder / 'runs' / 'demo' / 'config.json').write_text(text)
    return folder


@pytest.mark.parametrize('command', COMMANDS.values(), ids=COMMANDS.keys())
def test_command_line_is_understood(command, command_line):
    words = command_line(command)
    if words[0] == 'install':
        _check_install(words)
    elif words[0].endswith('.py'):
        _check_script(words[0])
    elif words[0].startswith('vivit_jax'):
        _check_module(*words)
    else:
        assert words[0] in ('venv', 'pytest')


def _check_install(words: list[str]):
    extras = set(re.findall(r'\.\[(.*?)\]', ' '.join(words)))
    assert extras <= set(re.findall(r"^        '(\w+)': ", (ROOT / 'setup.py').read_text(), re.M))


class _ParsedError(Exception):
    """Ends a script when its command line is parsed."""


def _check_script(path: str):
    """Lets a script parse its command line by argparse."""
    parse = argparse.ArgumentParser.parse_known_args

    def parse_and_stop(self, *args, **kwargs):
        raise _ParsedError(*parse(self, *args, **kwargs))

    with (
        mock.patch.object(argparse.ArgumentParser, 'parse_known_args', parse_and_stop),
        pytest.raises(_ParsedError) as parsed,
    ):
        runpy.run_path(path, run_name='__main__')
    known, rest = parsed.value.args
    if isinstance(getattr(known, 'model', None), list):
        _check_model(*known.model)
    if rest:
        values = flags.FlagValues()
        config_flags.DEFINE_config_file('config', flag_values=values)
        assert values([path, f'--config={known.config}', *rest]) == [path]
        assert values['config'].value


def _check_module(name: str, *arguments: str):
    """Lets a module parse its command line by absl."""
    if not arguments:
        assert importlib.util.find_spec(name)
        return
    words = []

    def parse_and_stop(main, argv=None, flags_parser=flags.FLAGS):
        words.extend(flags_parser(sys.argv)[1:])

    with mock.patch.object(app, 'run', parse_and_stop):
        module = runpy.run_module(name, run_name='__main__')
    if name == 'vivit_jax.prepare':
        assert f'vivit_jax.prepare {words[0]}' in module['__doc__']
    elif name in ('vivit_jax.summary', 'vivit_jax.convert'):
        _check_model(*words)
    elif name == 'vivit_jax.main':
        assert not words


def _check_model(*words: str):
    keywords = dict(word.split('=') for word in words if '=' in word)
    names = [word for word in words if '=' not in word] or ['vivit_fe']
    create_model(*names, **{key: _literal(value) for key, value in keywords.items()})


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_python_compiles_and_finds_what_it_imports(page):
    for language, code in FENCED.findall(page.read_text('utf-8')):
        if language == 'python':
            compile(code, page.name, 'exec')
            for node in ast.walk(ast.parse(code)):
                if isinstance(node, ast.ImportFrom) and node.module.startswith('vivit_jax'):
                    module = importlib.import_module(node.module)
                    assert all(hasattr(module, alias.name) for alias in node.names)


@functools.cache
def _configs() -> list[ConfigDict]:
    return [default_config(name) for name in list_models()]


def _is_key(key: str) -> bool:
    def find(node, name):
        return node[name] if isinstance(node, ConfigDict) and name in node else None

    *path, last = key.split('.')
    sections = [functools.reduce(find, path, config) for config in _configs()]
    return any(section is not None and last in section for section in sections)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_config_keys_exist(page):
    keys = set(re.findall(r'--config\.([a-z][\w.]*\w)', page.read_text('utf-8')))
    for code in INLINE.findall(_prose(page)):
        keys |= set(re.findall(rf'(?<![\w/])(?:{SECTIONS})\.(?!csv|json|py)\w+(?![\w.(])', code))
    assert not [key for key in sorted(keys) if not _is_key(key)]


def _anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    anchors = set()
    for heading in re.findall(r'^#+ (.*)$', _prose(page), re.M):
        slug = re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')
        anchors.add(slug if slug not in anchors else f'{slug}-1')
    return anchors


def _links(page: Path) -> list[str]:
    text = _prose(page)
    links = re.findall(r'\]\(([^)\s]+)\)', text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    return [link for link in links if not link.startswith(('http://', 'https://'))]


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in _links(page):
        path, _, anchor = link.partition('#')
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in _anchors(target), link


def test_every_page_is_linked_from_the_readme():
    linked = {(ROOT / link.partition('#')[0]).resolve() for link in _links(ROOT / 'README.md')}
    assert set(PAGES) - {ROOT / 'README.md'} <= linked


def test_every_config_is_listed():
    text = (ROOT / 'docs/training.md').read_text('utf-8')
    configs = [path.name for path in (ROOT / 'configs').glob('*.py')]
    assert configs and not [name for name in configs if f'`{name}`' not in text]


def _rows(page: str) -> list[list[str]]:
    lines = (ROOT / page).read_text('utf-8').splitlines()
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
    return [row for row in rows if row[0].strip('`') in list_models()]


def test_figures_of_the_readme_are_those_of_the_pages():
    rows = {row[0]: row for row in _rows('README.md')}
    assert len(rows) == len(list_models())
    sizes = {row[0]: row[2:4] for row in _rows('docs/models.md') if len(row) == 4}
    assert sizes == {name: row[1:3] for name, row in rows.items()}
    msr, motions = {}, {}
    for name, accuracy, *_ in (row for row in _rows('docs/results.md') if len(row) == 6):
        (motions if name in msr else msr)[name] = accuracy
    measured = {name: f'{motions[name]}, {msr[name]}' for name in msr}
    assert measured == {name: row[4] for name, row in rows.items()}


@pytest.mark.parametrize('name', ['attention', 'clusters'])
def test_pictures_are_those_that_their_scripts_draw(name, monkeypatch, capsys):
    script = ROOT / f'docs/draw_{name}.py'
    monkeypatch.setattr(sys, 'argv', [str(script)])
    runpy.run_path(str(script), run_name='__main__')
    assert capsys.readouterr().out == (ROOT / f'docs/{name}.svg').read_text('utf-8')


def test_subcommands_are_short_for_the_modules_beside_them():
    text = (ROOT / 'docs/training.md').read_text('utf-8')
    rows = re.findall(r'^\| `vivit_jax (\w+) ?(.*?)` \| `python -m (.*?)` \|$', text, re.M)
    assert [name for name, _, _ in rows] == list(subcommands.COMMANDS)
    for name, arguments, same in rows:
        assert same == ' '.join([*subcommands.COMMANDS[name], arguments])
