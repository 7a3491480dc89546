"""Parses the command line of commands that take `--config`."""

import functools
import operator
import os
import re
import sys

from absl import flags
from ml_collections import ConfigDict, config_flags

from vivit_jax.config.find import config_name, find_config
from vivit_jax.config.mistakes import explain
from vivit_jax.config.schema import DURATIONS, config_keys, find_value
from vivit_jax.errors import UserError, near_paths
from vivit_jax.models.registry import MODELS


def parse_flags(argv: list[str]) -> list[str]:
    """Parses the command line; a mistake in it becomes one clear line and exit status 2.

    - `--config` may be any name that `find_config` knows. Without `--config`, the run
      folder that `--resume`, `--workdir` or `--checkpoint` names gives its config.
    - `--config.KEY=None` unsets a key, which ml_collections has no way to say.
    - What the command line sets wins over other keys of the config file that say the same: a size
      over the widths and depths, and steps over epochs.

    Returns:
        The arguments that are no flags.
    """
    unset = [arg for arg in argv if re.fullmatch(r'--config\.[\w.]+=None', arg)]
    try:
        argv = _name_config(argv)
        rest = flags.FLAGS([arg for arg in argv if arg not in unset])
        # A file that does not load is an error only when the config is read.
        config = flags.FLAGS['config'].value
        if config is None:
            raise UserError(
                'name a config, such as --config=demo, or a run, with --resume=runs/demo'
            )
        for arg in unset:
            key = arg.removeprefix('--config.').removesuffix('=None')
            if config_keys(config.model.name)[key].initial is not None:
                raise UserError(f'{key} needs a value: None is for keys that have none by default')
            _unset(config, key)
            overrides()[key] = None
        _check_model(config)
        _prefer_given_size(config)
        _prefer_given_durations(config)
        config.seed  # noqa: B018
        return rest
    except Exception as error:  # the code of a config file may raise anything
        print(f'Error: {explain(argv, error)}', file=sys.stderr)
        sys.exit(2)


def overrides() -> dict[str, object]:
    """The keys that the parsed command line sets, with their values."""
    return config_flags.get_override_values(flags.FLAGS['config'])


def given_config() -> str:
    """The config of the parsed command line, such as `'configs/demo.py:ctn'`."""
    return config_name(config_flags.get_config_filename(flags.FLAGS['config']))


def _name_config(argv: list[str]) -> list[str]:
    """Puts the file of the config that the command line means, if any, before all other flags."""
    given, rest = {}, []
    args = iter(argv)
    for arg in args:
        match = re.fullmatch(r'--?(config|resume|workdir|checkpoint)(=.*)?', arg)
        if not match:
            rest.append(arg)
            continue
        name, value = match[1], match[2][1:] if match[2] else next(args, '')
        given[name] = value
        if name != 'config':
            rest.append(f'--{name}={value}')
    if 'resume' in given:
        for other in given.keys() - {'resume'}:
            raise UserError(
                f'--resume={given["resume"]} takes everything from the run: leave out --{other}'
            )
    run = given.get('resume') or given.get('workdir') or given.get('checkpoint')
    if 'config' not in given and run:
        given['config'] = os.path.join(run, 'config.json')
        if not os.path.isfile(given['config']):
            near = '' if os.path.isdir(run) else near_paths(run)
            raise UserError(
                f'{run} has no config.json, which every run folder has; for other weights name a '
                f'config with --config{near}'
            )
    if 'config' not in given:
        return argv
    return [*rest[:1], f'--config={find_config(given["config"])}', *rest[1:]]


def _unset(config: ConfigDict, key: str):
    *path, name = key.split('.')
    functools.reduce(operator.getitem, path, config)[name] = None


def _check_model(config: ConfigDict):
    """Raises a UserError if the command line names a model that has other keywords."""
    name = config.model.name
    keywords = {key for key in config_keys(name) if key.startswith('model.')}
    if keywords != {f'model.{key}' for key in config.model}:
        raise UserError(
            f'--config.model.name={name}: {given_config()} has the keywords of another model. '
            f'custom.py and demo.py take a model after a colon: --config=custom:{name}'
        )


def _prefer_given_size(config: ConfigDict):
    """Unsets what a config file set and a size on the command line sets too, and says so."""
    if 'model.size' in overrides():
        preset = MODELS[config.model.name].preset(config.model.size)
        _replace(config, 'model.size', [f'model.{keyword}' for keyword in preset])


def _prefer_given_durations(config: ConfigDict):
    """Of keys that say how long something lasts, keeps those that the command line sets."""
    for keys in DURATIONS:
        for given in keys:
            if overrides().get(given) is not None:
                _replace(config, given, [key for key in keys if key != given])


def _replace(config: ConfigDict, given: str, others: list[str]):
    """Unsets keys that a config file set, in favour of one that the command line sets."""
    replaced = [
        key for key in others if key not in overrides() and find_value(config, key) is not None
    ]
    values = ', '.join(f'{key.rpartition(".")[2]}={find_value(config, key)}' for key in replaced)
    for key in replaced:
        _unset(config, key)
    if replaced:
        value = find_value(config, given)
        print(f'{given}={value} replaces {values} of the config', file=sys.stderr)
