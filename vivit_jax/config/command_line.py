"""Parses the command line of commands that take `--config`."""

import difflib
import functools
import operator
import re
import sys

from absl import flags
from ml_collections import ConfigDict, config_flags

from vivit_jax.config.schema import config_keys
from vivit_jax.models.registry import MODELS, list_models

# Errors that flags and the code of a config file may raise.
_PARSE_ERRORS = (
    flags.Error,
    AttributeError,
    ImportError,
    KeyError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
)


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the command line; a mistake in it becomes one clear line and exit status 2.

    `--config.KEY=None` unsets a key, which ml_collections has no way to say.
    """
    unset = [arg for arg in argv if re.fullmatch(r'--config\.[\w.]+=None', arg)]
    try:
        rest = flags.FLAGS([arg for arg in argv if arg not in unset])
        # A file that does not load is an error only when the config is read.
        config = flags.FLAGS['config'].value
        for arg in unset:
            key = arg.removeprefix('--config.').removesuffix('=None')
            if config_keys(config.model.name)[key].initial is not None:
                raise ValueError(f'{key} needs a value: None is for keys that have none by default')
            *path, name = key.split('.')
            functools.reduce(operator.getitem, path, config)[name] = None
            overrides()[key] = None
        _prefer_given_size(config)
        config.seed  # noqa: B018
        return rest
    except _PARSE_ERRORS as error:
        print(f'Error: {_explain(argv, error)}', file=sys.stderr)
        sys.exit(2)


def overrides() -> dict[str, object]:
    """The keys that the parsed command line sets, with their values."""
    return config_flags.get_override_values(flags.FLAGS['config'])


def _prefer_given_size(config: ConfigDict):
    """Unsets what a config file set and a size on the command line sets too, and says so."""
    if 'model.size' not in overrides():
        return
    preset = MODELS[config.model.name].preset(config.model.size)
    unset = {
        keyword: config.model[keyword]
        for keyword in preset
        if config.model[keyword] is not None and f'model.{keyword}' not in overrides()
    }
    for keyword in unset:
        config.model[keyword] = None
    if unset:
        values = ', '.join(f'{keyword}={value}' for keyword, value in unset.items())
        print(f'model.size={config.model.size} replaces {values} of the config', file=sys.stderr)


def _explain(argv: list[str], error: BaseException) -> str:
    known = {key: None for name in list_models() for key in config_keys(name)}
    for arg in argv:
        key = arg.removeprefix('--config.').split('=')[0]
        if arg.startswith('--config.') and key not in known:
            near = difflib.get_close_matches(key, known, n=3, cutoff=0.6)
            hint = f'did you mean {", ".join(near)}?' if near else 'see vivit_jax/config/schema.py'
            return f'{arg}: there is no config key {key!r}; {hint}'
    file = next((arg for arg in argv if arg.startswith('--config=')), None)
    if file is None:
        return 'name a config, such as --config=configs/demo.py'
    if isinstance(error, OSError):
        return f'cannot read {file}'
    if isinstance(error, flags.Error):  # a mistake inside a config file ends a whole traceback
        return str(error).strip().splitlines()[-1]
    missing = str(error).strip('"\'')
    for arg in argv:
        if arg.startswith(f'--config.model.{missing}='):
            return f'{arg}: the model of {file} has no such keyword'
    # ml_collections lists all fields of the section, and its advice in a line of its own.
    text = re.sub(r' Other fields present: .*}"', '', str(error).strip('"\'').replace('\\n', ' '))
    return f'{file}: {" ".join(text.split())}'
