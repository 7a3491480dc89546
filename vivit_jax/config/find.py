"""Finds the config file that a user names."""

import difflib
import os
from pathlib import Path

import vivit_jax
from vivit_jax.config import saved_run
from vivit_jax.errors import UserError, near_paths

_PACKAGE = Path(vivit_jax.__file__).parent
# The folder that holds the folder `configs`: of an installed package, or of a checkout.
_HOME = _PACKAGE if (_PACKAGE / 'configs').is_dir() else _PACKAGE.parent


def find_config(name: str) -> str:
    """The config file that a name means, in the form `'FILE'` or `'FILE:argument'`.

    Args:
        name: `'demo'`, `'demo:ctn'`, `'configs/demo.py'`, a file of the user, or `config.json` of a
            run folder. Names are looked up in the working directory, and then among the configs
            that come with this package.

    Raises:
        UserError: there is no such file; the message lists near names.
    """
    path, colon, argument = name.partition(':')
    if path.endswith('.json'):
        return f'{saved_run.__file__}:{name}'
    files = [os.path.join(folder, file) for file in (path, f'{path}.py') for folder in _folders()]
    found = next(filter(os.path.isfile, files), None)
    if found is None:
        raise UserError(f'there is no config {path}{_near(path)}')
    return f'{found}{colon}{argument}'


def config_name(found: str) -> str:
    """The name of a config that was found, as a user knows it."""
    return found.removeprefix(f'{saved_run.__file__}:')


def _folders() -> list[str]:
    return ['', 'configs', str(_HOME), str(_HOME / 'configs')]


def _near(path: str) -> str:
    if '/' in path and Path(path).parent != Path('configs'):
        return near_paths(path)
    names = {file.stem for folder in _folders()[1::2] for file in Path(folder).glob('*.py')}
    near = difflib.get_close_matches(Path(path).stem, names, n=3, cutoff=0.5)
    if near:
        return f'; did you mean {" or ".join(near)}?'
    return f'; known: {", ".join(sorted(names))}'
