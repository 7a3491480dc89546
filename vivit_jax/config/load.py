"""Reads a config: settings of the parts, durations in steps, and differences of two configs."""

import ast
import dataclasses
import json
import math
from collections.abc import Mapping

from ml_collections import ConfigDict

from vivit_jax.annotations.catalog import DATASETS
from vivit_jax.augment.policy import Augmentation
from vivit_jax.batches.loader import Workers
from vivit_jax.config.schema import KEYS, config_keys, default_config, find_value
from vivit_jax.errors import UserError, check_range
from vivit_jax.heads import PerHead, by_head
from vivit_jax.models.registry import create_model
from vivit_jax.video.crops import RandomCrop
from vivit_jax.video.limits import Limits
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.video.synthetic import SyntheticVideos

_SCHEDULES = ('cosine', 'linear', 'constant', 'step')


def check_ranges(config: ConfigDict):
    """Raises a UserError where a number of a config is out of its range."""
    for name, key in config_keys(config.model.name).items():
        value = find_value(config, name)
        if key.low > -math.inf and value is not None:
            check_range(name, value, key.low, key.high)
    augmentation(config)
    limits(config)
    depth_from = config.init.depth_from
    if depth_from and not (config.init_from and config.model.modality == 'rgbd'):
        raise UserError(
            f'init.depth_from={depth_from!r} starts the depth stream of a model for both: it needs '
            "model.modality='rgbd', and the weights for RGB in init_from"
        )
    sizes = config.model.num_classes
    if sizes is not None and not all(type(n) is int and n >= 1 for n in by_head(sizes).values()):
        raise UserError(
            f'model.num_classes={sizes!r} must be a whole number from 1, or one for each of '
            "several heads, such as {'verb': 97, 'noun': 300}"
        )


def steps_per_epoch(num_videos: int, batch_size: int) -> int:
    """Steps of an epoch: the last batch must be whole; at least one step."""
    return max(1, num_videos // batch_size)


def steps(section: ConfigDict, name: str, steps_per_epoch: int, num_steps: int = 0) -> int:
    """A duration such as `num` or `warmup` in steps; 0 if none of its keys is set.

    Args:
        section: has the keys `<name>_steps`, `<name>_epochs` and, of a warm-up, `<name>_fraction`.
        name: of the duration.
        steps_per_epoch: see above.
        num_steps: of the whole training, for a fraction.

    Raises:
        UserError: several of these keys are set, or one is negative.
    """
    lengths = {'steps': 1, 'epochs': steps_per_epoch, 'fraction': num_steps}
    values = {f'{name}_{unit}': section.get(f'{name}_{unit}') for unit in lengths}
    given = {key: value for key, value in values.items() if value is not None}
    if len(given) > 1:
        both = ' and '.join(f'{key}={value}' for key, value in given.items())
        raise UserError(
            f'{both} are both set: unset one, giving None for {next(reversed(given))}, for example'
        )
    for key, value in given.items():
        if value < 0:
            raise UserError(f'{key}={value} is negative')
        return round(value * lengths[key.rpartition('_')[2]])
    return 0


def schedule_kind(train: ConfigDict) -> str:
    """The schedule of the section `train`: 'cosine', 'linear', 'constant' or 'step'.

    Raises:
        UserError: it is none of them, or contradicts `decay_epochs`.
    """
    kind = train.schedule or ('step' if train.decay_epochs else 'cosine')
    if kind not in _SCHEDULES:
        raise UserError(f'train.schedule={kind!r} must be one of {", ".join(_SCHEDULES)}')
    if kind == 'step' and not train.decay_epochs:
        raise UserError(
            "train.schedule='step' needs the epochs from which on the learning rate is a tenth, "
            'such as train.decay_epochs=(20,40,60)'
        )
    if kind != 'step' and train.decay_epochs:
        raise UserError(
            f'train.schedule={kind!r} and train.decay_epochs={tuple(train.decay_epochs)} '
            "contradict each other: set train.schedule='step' or train.decay_epochs=()"
        )
    return kind


def preprocessing(config: ConfigDict) -> Preprocessing:
    """The section `preprocessing`."""
    return _make(Preprocessing, config.preprocessing.to_dict())


def synthetic_videos(config: ConfigDict) -> SyntheticVideos:
    """The section `data.synthetic`."""
    return _make(SyntheticVideos, config.data.synthetic.to_dict())


def limits(config: ConfigDict) -> Limits:
    """The section `data.limits`."""
    return _make(Limits, config.data.limits.to_dict())


def augmentation(config: ConfigDict) -> Augmentation:
    """The changes of the section `augment` that happen on the device."""
    names = (field.name for field in dataclasses.fields(Augmentation))
    return Augmentation(**{name: config.augment[name] for name in names})


def random_crop(config: ConfigDict, spec: Preprocessing) -> RandomCrop:
    """The random crop of the section `augment`, which happens while decoding."""
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
    """How the section `data` has batches made ready in advance."""
    data = config.data
    return Workers(data.num_workers, data.worker_threads, data.worker_buffer, data.stall_sec)


def mesh_sizes(config: ConfigDict) -> tuple[int, int, int]:
    """Devices along each axis of the mesh, see `create_mesh`."""
    return config.parallel.data, config.parallel.fsdp, config.parallel.tensor


def model_keywords(config: ConfigDict) -> dict[str, object]:
    """Arguments for `create_model`: the keys of the section `model` that are set."""
    return {name: value for name, value in config.model.items() if value is not None}


def guess_classes(config: ConfigDict) -> PerHead[int]:
    """The number of classes that a config sets, or else that its dataset has, or else 400."""
    if config.model.num_classes is not None:
        return model_keywords(config)['num_classes']
    dataset = DATASETS.get(config.data.source)
    if dataset is not None and dataset.num_classes is not None:
        return dataset.num_classes
    columns = config.data.label_columns
    return 400 if len(columns) == 1 else dict.fromkeys(columns, 400)


def model_config(name: str, *settings: str) -> ConfigDict:
    """The default config of a model with keywords of the model set, as in `'num_classes=600'`.

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
        Lines for the changed keys that a resumed run may change, and lines for the others.
    """
    allowed, forbidden = [], []
    initial = {name: key.initial for name, key in KEYS.items()}  # of keys that are newer than a run
    for key in sorted(old.keys() | new.keys()):
        before, after = old.get(key, initial.get(key)), new.get(key)
        if before == after:
            continue
        line, known = f'{key}: {before!r} -> {after!r}', KEYS.get(key)
        may_change = known is not None and known.may_change
        if known and known.may_grow and None not in (before, after):
            may_change = after > before
            line += '' if may_change else ', and may only grow'
        (allowed if may_change else forbidden).append(line)
    return allowed, forbidden


def _make(kind: type, values: dict):
    try:
        return kind(**values)
    except ValueError as error:
        raise UserError(str(error)) from error
