"""What follows from a config: durations in steps, settings of the parts, and differences."""

import ast
import dataclasses
import difflib
import functools
import json
import math
import operator
import re
import sys
from collections.abc import Mapping

from absl import flags
from ml_collections import ConfigDict

from vivit_jax.augment.policy import Augmentation
from vivit_jax.batches.loader import Workers
from vivit_jax.config.schema import default_config
from vivit_jax.errors import UserError
from vivit_jax.heads import by_head
from vivit_jax.models.registry import create_model, list_models
from vivit_jax.video.crops import RandomCrop
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.video.synthetic import SyntheticVideos

# A resumed run may change these: they do not alter what is computed.
MAY_DIFFER = (
    'data.root',
    'data.annotations',
    'data.max_bad_fraction',
    'data.num_workers',
    'data.worker_threads',
    'data.worker_buffer',
    'data.cache_dir',
    'train.checkpoint_every_epochs',
    'train.checkpoint_every_steps',
    'train.keep_last',
    'train.keep_best',
    'eval',
    'init_from',
)


# Where a number must lie, both ends included.
_RANGES = {
    'train.batch_size': (1, math.inf),
    'train.learning_rate': (0, math.inf),
    'train.momentum': (0, 1),
    'train.adam_b2': (0, 1),
    'train.weight_decay': (0, math.inf),
    'train.clip_norm': (0, math.inf),
    'train.label_smoothing': (0, 1),
    'train.layer_decay': (0, 1),
    'train.ema_decay': (0, 1),
    'train.keep_last': (1, math.inf),
    'train.keep_best': (0, math.inf),
    'eval.batch_size': (1, math.inf),
    'data.num_workers': (0, math.inf),
    'data.worker_threads': (1, math.inf),
    'data.worker_buffer': (1, math.inf),
    'data.max_bad_fraction': (0, 1),
    'augment.repeats': (1, math.inf),
    'augment.flip': (0, 1),
    'augment.color_jitter': (0, 1),
    'augment.color_drop': (0, 1),
    'augment.randaugment_layers': (0, math.inf),
    'augment.randaugment_magnitude': (0, math.inf),
    'augment.erase': (0, 1),
    'augment.mixup_alpha': (0, math.inf),
    'augment.cutmix_alpha': (0, math.inf),
}


def check_ranges(config: ConfigDict):
    """Raises a UserError where a number of a config cannot be."""
    flat = flatten(config)
    for key, (low, high) in _RANGES.items():
        if not low <= flat[key] <= high:
            limit = f'at least {low}' if high == math.inf else f'from {low} to {high}'
            raise UserError(f'{key}={flat[key]} must be {limit}')
    sizes = config.model.num_classes
    if sizes is not None and not all(type(n) is int and n >= 1 for n in by_head(sizes).values()):
        raise UserError(
            f'model.num_classes={sizes!r} must be a whole number from 1, or one for each of '
            "several heads, such as {'verb': 97, 'noun': 300}"
        )


def steps(section: ConfigDict, name: str, steps_per_epoch: int) -> int:
    """A duration of a section in steps; 0 where neither of its keys is set.

    Raises:
        UserError: both `<name>_steps` and `<name>_epochs` are set, or one is negative.
    """
    in_steps, in_epochs = section[f'{name}_steps'], section[f'{name}_epochs']
    if in_steps is not None and in_epochs is not None:
        raise UserError(
            f'{name}_steps={in_steps} and {name}_epochs={in_epochs} are both set: unset one, '
            f'giving None for {name}_epochs, for example'
        )
    count = round(in_epochs * steps_per_epoch) if in_epochs is not None else in_steps or 0
    if count < 0:
        raise UserError(f'{name}_steps or {name}_epochs is negative')
    return count


def preprocessing(config: ConfigDict) -> Preprocessing:
    """The section `preprocessing`."""
    return _make(Preprocessing, config.preprocessing.to_dict())


def synthetic_videos(config: ConfigDict) -> SyntheticVideos:
    """The section `data.synthetic`."""
    return _make(SyntheticVideos, config.data.synthetic.to_dict())


def augmentation(config: ConfigDict) -> Augmentation:
    """What of the section `augment` happens on the device."""
    names = (field.name for field in dataclasses.fields(Augmentation))
    return Augmentation(**{name: config.augment[name] for name in names})


def random_crop(config: ConfigDict, spec: Preprocessing) -> RandomCrop:
    """What of the section `augment` happens while decoding."""
    jitter, area = config.augment.scale_jitter, config.augment.resized_area
    if jitter and area:
        raise UserError('augment.scale_jitter and augment.resized_area exclude each other')
    for name, value in (('scale_jitter', jitter), ('resized_area', area)):
        if value and not (len(value) == 2 and 0 < value[0] <= value[1]):
            raise UserError(f'augment.{name}={value} must be (min, max) with 0 < min <= max')
    if area and area[1] > 1:
        raise UserError(f'augment.resized_area={area} is a part of the frame: at most 1')
    return RandomCrop(spec, jitter, area)


def workers(config: ConfigDict) -> Workers:
    """How many processes and threads decode."""
    return Workers(config.data.num_workers, config.data.worker_threads, config.data.worker_buffer)


def model_keywords(config: ConfigDict) -> dict[str, object]:
    """What `create_model` gets: the keys of the section `model` that are set."""
    return {name: value for name, value in config.model.items() if value is not None}


def model_config(name: str, *settings: str) -> ConfigDict:
    """The default config of a model with settings of its keywords, as `'num_classes=600'`.

    Raises:
        UserError: there is no such model, keyword or value.
    """
    try:
        config = default_config(name)
        for setting in settings:
            keyword, is_assigned, text = setting.partition('=')
            if not is_assigned:
                raise UserError(f'{setting!r} must have the form keyword=value')
            if keyword not in config.model:
                create_model(name, **{keyword: None})  # says which keywords are near
            config.model[keyword] = _literal(text)
    except TypeError as error:
        kind = config.model.get_type(keyword).__name__
        raise UserError(f'{setting}: {keyword} must be of type {kind}') from error
    except ValueError as error:
        raise UserError(str(error)) from error
    return config


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return text


def flatten(config: ConfigDict) -> dict[str, object]:
    """`{'train.batch_size': 64, …}` with values as JSON has them."""
    flat = {}

    def visit(prefix: str, node: Mapping):
        for key, value in node.items():
            if isinstance(value, Mapping):
                visit(f'{prefix}{key}.', value)
            else:
                flat[prefix + key] = value

    visit('', json.loads(config.to_json()))
    return flat


def differences(old: Mapping[str, object], new: Mapping[str, object]) -> tuple[list, list]:
    """Compares flat configs.

    Returns:
        Lines for the keys that differ and may, and lines for those that may not.
    """
    allowed, forbidden = [], []
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            may = any(key == name or key.startswith(f'{name}.') for name in MAY_DIFFER)
            line = f'{key}: {old.get(key)!r} -> {new.get(key)!r}'
            (allowed if may else forbidden).append(line)
    return allowed, forbidden


# What flags and the code of a config file may raise.
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
            _unset(config, arg.removeprefix('--config.').removesuffix('=None'))
        config.seed  # noqa: B018
        return rest
    except _PARSE_ERRORS as error:
        print(f'Error: {_explain(argv, error)}', file=sys.stderr)
        sys.exit(2)


def _unset(config: ConfigDict, key: str):
    if flatten(default_config(config.model.name))[key] is not None:
        raise ValueError(f'{key} needs a value: None is for keys that have none by default')
    *path, name = key.split('.')
    functools.reduce(operator.getitem, path, config)[name] = None


def _explain(argv: list[str], error: BaseException) -> str:
    known = {key: None for name in list_models() for key in flatten(default_config(name))}
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


def _make(kind: type, values: dict):
    try:
        return kind(**values)
    except ValueError as error:
        raise UserError(str(error)) from error
