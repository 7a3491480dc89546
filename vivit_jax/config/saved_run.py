"""The config of a run: its `config.json` as a config file.

python -m vivit_jax.main --config=runs/demo/config.json --mode=evaluate
"""

import json
from pathlib import Path

from ml_collections import ConfigDict

from vivit_jax.config.schema import config_keys, default_config, find_value
from vivit_jax.errors import UserError, near_paths

_DICTS = ('model.num_classes', 'train.optimizer_keywords')  # keys whose values may be dicts


def get_config(path: str) -> ConfigDict:
    """Reads the `config.json` of a run folder.

    Raises:
        UserError: it cannot be read, or has keys that this version does not know.
    """
    try:
        flat = json.loads(Path(path).read_text('utf-8'))
        config = default_config(flat['model.name'])
    except OSError as error:
        raise UserError(f'{path}: {error.strerror}{near_paths(path)}') from error
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f'{path} is not the config.json of a run folder ({error})') from error
    flat = _gather_dicts(flat)
    unknown = flat.keys() - config_keys(flat['model.name']).keys()
    if unknown:
        raise UserError(
            f'{path} has keys that this version does not know: {", ".join(sorted(unknown))}'
        )
    for key, value in flat.items():
        section, _, name = key.rpartition('.')
        (find_value(config, section) if section else config)[name] = _with_tuples(value)
    return config


def _gather_dicts(flat: dict[str, object]) -> dict[str, object]:
    """With one dict for each of `_DICTS`, where the file has a line for each of its entries."""
    gathered = {}
    for key, value in flat.items():
        name = next((name for name in _DICTS if key.startswith(f'{name}.')), None)
        if name:
            gathered.setdefault(name, {})[key.removeprefix(f'{name}.')] = value
        else:
            gathered[key] = value
    return gathered


def _with_tuples(value: object) -> object:
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value
