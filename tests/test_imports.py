"""Arrows between the packages point one way: who may import whom."""

import ast
import functools
import graphlib
import itertools
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / 'vivit_jax'

# From the top to the bottom: a package may import the packages of the levels below its own.
# Packages and modules that are not listed are commands, at the very top.
LEVELS = (
    ('train', 'predictor', 'probe'),
    ('features',),
    ('evaluation', 'torch', 'prediction'),
    ('weights', 'config'),
    ('augment', 'model_card'),
    ('models', 'batches'),
    ('layers', 'video', 'costs'),
    ('parallel', 'annotations'),
    ('heads', 'atomic_files', 'terminal', 'parameter_names', 'cache_folder'),
    ('signals',),
    ('processes', 'errors'),
)
COMMANDS = ('prepare', 'convert')  # commands that are packages; every other command is a module
ROOMS = ('annotations', 'video', 'batches')  # their code runs in decoding processes
JAX = {'jax', 'jaxlib', 'flax', 'optax', 'orbax', 'chex'}


@functools.cache
def modules():
    """Name without `vivit_jax.` to path, `''` for the package itself."""
    found = {}
    for path in ROOT.rglob('*.py'):
        parts = path.relative_to(ROOT).with_suffix('').parts
        found['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
    return found


@functools.cache
def imports(module):
    """The modules of this package and the libraries that a module imports anywhere in its code."""
    ours, libraries = set(), set()
    for node in ast.walk(ast.parse(modules()[module].read_text(encoding='utf-8'))):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f'{module}: relative imports are not used here'
            names = [f'{node.module}.{alias.name}' for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            package, _, rest = name.partition('.')
            if package != 'vivit_jax':
                libraries.add(package)
            elif rest in modules():
                ours.add(rest)
            elif rest.rpartition('.')[0] in modules():  # a name in a module
                ours.add(rest.rpartition('.')[0])
    return ours - {''}, libraries  # the package itself has the version only


def package_of(module):
    return module.partition('.')[0]


@functools.cache
def arrows():
    """Pairs of packages (importer, imported), each with an example."""
    found = {}
    for module in modules():
        for other in imports(module)[0]:
            if package_of(module) != package_of(other):
                found.setdefault((package_of(module), package_of(other)), f'{module} -> {other}')
    return found


def level_of(package):
    """The height of a package."""
    for height, level in enumerate(reversed(LEVELS)):
        if package in level:
            return height
    return len(LEVELS)


def test_packages_import_only_what_lies_below_them():
    upward = [
        example
        for (package, other), example in arrows().items()
        if level_of(other) >= level_of(package) and level_of(package) < len(LEVELS)
    ]
    assert not upward


def test_no_packages_import_each_other_in_a_circle():
    imported = {}
    for package, other in arrows():
        imported.setdefault(package, set()).add(other)
    try:
        graphlib.TopologicalSorter(imported).prepare()
    except graphlib.CycleError as error:
        circle = error.args[1][::-1]
        pytest.fail(str([arrows()[pair] for pair in itertools.pairwise(circle)]))


def test_every_package_has_its_level():
    listed = {package for level in LEVELS for package in level}
    packages = {path.name for path in ROOT.iterdir() if (path / '__init__.py').exists()}
    assert packages - {*COMMANDS} <= listed, 'put new packages into LEVELS'
    assert listed <= {package_of(module) for module in modules()}, 'LEVELS names what is gone'


@pytest.mark.parametrize('room', ROOMS)
def test_rooms_of_the_data_never_reach_jax(room):
    waiting, seen = [name for name in modules() if package_of(name) == room], set()
    while waiting:
        module = waiting.pop()
        if module not in seen:
            seen.add(module)
            ours, libraries = imports(module)
            assert not libraries & JAX, f'{module} imports {libraries & JAX}'
            waiting += ours
    assert len(seen) > 5


@pytest.mark.parametrize('package', ['models', 'layers'])
def test_models_know_neither_configs_nor_data(package):
    unwanted = {'config', 'configs', 'ml_collections', *ROOMS}
    for module in modules():
        if package_of(module) == package:
            ours, libraries = imports(module)
            assert not unwanted & ({package_of(x) for x in ours} | libraries), module


# The modules of distributions that have another name than their module.
MODULES = {'absl-py': 'absl', 'orbax-checkpoint': 'orbax', 'protobuf': 'google'}
OPTIONAL = {'torch', 'transformers', 'wandb'}  # belong to extras, and are imported inside functions


def test_libraries_are_imported_exactly_if_they_are_declared():
    text = (ROOT.parent / 'setup.py').read_text(encoding='utf-8')
    (requirements,) = (
        ast.literal_eval(keyword.value)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == 'install_requires'
    )
    names = [re.match(r'[\w-]+', requirement)[0] for requirement in requirements]
    declared = {MODULES.get(name, name.replace('-', '_')) for name in names}
    found = {name for module in modules() for name in imports(module)[1]}
    assert found - sys.stdlib_module_names == declared | OPTIONAL
