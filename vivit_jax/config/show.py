"""The text of `--mode=show`: the keys of a config, its schedule and its cost."""

import csv
import os
import textwrap
from collections.abc import Collection

from ml_collections import ConfigDict

from vivit_jax.annotations.catalog import find_dataset
from vivit_jax.batches.load_dataset import SOURCES
from vivit_jax.config import load
from vivit_jax.config.schema import config_keys, find_value
from vivit_jax.costs import count_macs, count_parameters, model_call, plain_form
from vivit_jax.errors import UserError, describe_range
from vivit_jax.models.registry import MODELS, create_model, model_keywords, specify
from vivit_jax.models.variables import abstract_clip

Row = tuple[str, str, str]  # name, value, explanation

_INTRODUCTION = 'Keys by the origin of their values; a resumed run may change keys with *.'

# The backward pass costs two forward passes: gradients of activations and of parameters.
_PASSES = 3
_H100_FLOPS = 4e14  # per second: 40 % of an H100's peak in bfloat16


def describe(
    config: ConfigDict,
    file: str,
    overrides: Collection[str] = (),
    num_videos: int | None = None,
    width: int = 1000,
) -> str:
    """Describes a config without running anything; reads no videos and at most counts a list.

    Args:
        config: any config.
        file: the config file, as the user named it.
        overrides: keys that the command line sets.
        num_videos: number of training videos; by default from the list or the catalog.
        width: characters of a line.

    Returns:
        A table of keys for each origin of values, a table for the schedule and one for the cost.

    Raises:
        UserError: values that are out of range or do not fit each other.
    """
    load.check_ranges(config)
    load.random_crop(config, load.preprocessing(config))
    load.synthetic_videos(config)
    found = 'from --num_videos'
    if num_videos is None:
        num_videos, found = count_training_videos(config)
    per_epoch = None
    if num_videos is not None:
        per_epoch = load.steps_per_epoch(num_videos, config.train.batch_size)
    try:
        tables = [*_key_tables(config, file, overrides), _cost_table(config, per_epoch)]
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f'model: {error}') from error
    tables.insert(-1, _schedule_table(config, num_videos, found, per_epoch))
    paragraphs = [_format(title, rows, width) for title, rows in tables]
    return '\n\n'.join([_INTRODUCTION, *paragraphs])


def count_training_videos(config: ConfigDict) -> tuple[int | None, str]:
    """Counts the training videos of the list or the catalog; missing files are not left out.

    Of a list from which `data.val_fraction` draws, the number that stays is about right.

    Returns:
        The number and its origin, or None and the reason why the number is unknown.
    """
    count, origin = _count_listed(config.data)
    fraction = config.data.val_fraction
    if count is not None and fraction:
        return round((1 - fraction) * count), f'about {1 - fraction:.3g} of {count:,}: {origin}'
    return count, origin


def _count_listed(data: ConfigDict) -> tuple[int | None, str]:
    if data.source == 'synthetic':
        return data.synthetic.num_train, 'data.synthetic.num_train'
    if data.source == 'tfrecords':
        return None, 'TFRecord files do not say how many clips they hold'
    if data.source not in SOURCES:
        dataset = find_dataset(data.source)
        sizes = dataset.splits.get(data.protocol or dataset.protocols[0], {})
        if 'train' in sizes:
            return sizes['train'], f'{dataset.name} in full, from {dataset.source}'
        return None, f'the catalog has no size for {dataset.name}'
    file = data.train_csv if data.source == 'csv' else os.path.join(data.root, 'train.csv')
    if not file:
        return None, 'folders are not counted' if data.root else 'data.train_csv is not set'
    try:
        with open(file, encoding='utf-8', newline='') as lines:
            return sum(1 for _ in csv.DictReader(lines)), f'lines of {file}'
    except OSError as error:
        return None, f'cannot read {file}: {error.strerror}'


def _key_tables(
    config: ConfigDict, file: str, overrides: Collection[str]
) -> list[tuple[str, list[Row]]]:
    """A table for each origin of values; values that are not defaults come first."""
    name, size = config.model.name, config.model.size
    spec = specify(**load.model_keywords(config))
    keywords = model_keywords(name).keys() - {'num_classes'}  # the data decides on num_classes
    sizes = MODELS[name].preset(size)
    of_size, of_model = f'size {size}', f'defaults of {name}'
    origins = {'command line': [], file: [], of_size: [], of_model: [], 'defaults': []}
    for key, entry in config_keys(name).items():
        value, keyword = find_value(config, key), key.removeprefix('model.')
        origin = 'defaults'
        if keyword in keywords and value is None:
            value = getattr(spec, keyword)
            origin = of_size if keyword in sizes else of_model
        elif key in overrides:
            origin = 'command line'
        elif value != entry.initial or key == 'model.name':
            origin = file
        limit = describe_range(entry.low, entry.high)
        meaning = f'{entry.meaning} ({limit})' if limit else entry.meaning
        plain = value.to_dict() if isinstance(value, ConfigDict) else value
        origins[origin].append((key + '*' * entry.may_change, repr(plain), meaning))
    return [(origin, rows) for origin, rows in origins.items() if rows]


def _schedule_table(
    config: ConfigDict, num_videos: int | None, found: str, per_epoch: int | None
) -> tuple[str, list[Row]]:
    def row(title: str, section: str, name: str, unset: str) -> Row:
        values, steps = config[section], _steps(config, section, name, per_epoch)
        text = ''
        if values[f'{name}_epochs'] is not None:
            text = f'{values[f"{name}_epochs"]:g} epochs'
        elif values.get(f'{name}_fraction') is not None:
            text = f'{100 * values[f"{name}_fraction"]:.3g} % of the training'
        if steps == 0:
            return title, 'none', unset
        if steps is None:
            return title, text, 'in steps unknown without the number of videos'
        return title, f'{steps:,} steps', text

    if num_videos is None:
        videos = 'unknown', f'{found}; to see all numbers give --num_videos=N'
    else:
        videos = f'{num_videos:,}', found
    whole_epoch = 'unknown' if per_epoch is None else f'{per_epoch:,} steps'
    at_end = 'only at the end of the training'
    return 'Schedule', [
        ('training videos', *videos),
        ('epoch', whole_epoch, f'of {config.train.batch_size} clips'),
        row('training', 'train', 'num', 'set train.num_epochs or train.num_steps'),
        row('warm-up', 'train', 'warmup', ''),
        ('learning rate', *_decay(config)),
        row('validation every', 'eval', 'every', at_end),
        row('checkpoint every', 'train', 'checkpoint_every', f'after a validation, else {at_end}'),
    ]


def _decay(config: ConfigDict) -> tuple[str, str]:
    kind = load.schedule_kind(config.train)
    epochs = ', '.join(f'{epoch:g}' for epoch in config.train.decay_epochs)
    return {
        'cosine': ('half a cosine', 'to 0, after the warm-up'),
        'linear': ('falls linearly', 'to 0, after the warm-up'),
        'constant': ('stays', 'after the warm-up'),
        'step': ('falls in steps', f'to a tenth from each of the epochs {epochs} on'),
    }[kind]


def _cost_table(config: ConfigDict, per_epoch: int | None) -> tuple[str, list[Row]]:
    classes = load.guess_classes(config)
    follows = '' if config.model.num_classes is not None else '; a training asks the data'
    model = create_model(**{**load.model_keywords(config), 'num_classes': classes})
    clip_shape = load.preprocessing(config).clip_shape
    call = model_call(plain_form(model), abstract_clip(model.spec, clip_shape))
    macs, _ = count_macs(call.function, *call.args)
    step = 2 * _PASSES * macs * config.train.batch_size
    whole = 'unknown', 'the number of steps is missing'
    num_steps = _steps(config, 'train', 'num', per_epoch)
    if num_steps:
        total = step * num_steps
        hours = f'about {total / _H100_FLOPS / 3600:,.1f} hours of one H100 at 400 TFLOP/s'
        hours += ' (40 % of its peak in bfloat16), if decoding keeps up'
        whole = f'{total:.3g} FLOPs', hours
    return 'Cost', [
        (
            'parameters',
            f'{count_parameters(call.params):,}',
            f'with num_classes={classes}{follows}',
        ),
        (
            'clip forward',
            f'{macs / 1e9:,.4g} GMAC',
            f'billion multiply-adds for {"x".join(map(str, clip_shape))} frames and pixels',
        ),
        (
            'training step',
            f'{step:.3g} FLOPs',
            f'2 per multiply-add, {_PASSES} x forward, {config.train.batch_size} clips',
        ),
        ('whole training', *whole),
    ]


def _steps(config: ConfigDict, section: str, name: str, per_epoch: int | None) -> int | None:
    """A duration in steps; None if the length of an epoch is unknown and decides."""
    values = config[section]
    whole = 0
    if values.get(f'{name}_fraction'):
        whole = _steps(config, section, 'num', per_epoch)
        if whole is None:
            return None
    steps = load.steps(values, name, per_epoch or 1, whole)
    return None if per_epoch is None and values[f'{name}_epochs'] else steps


def _format(title: str, rows: list[Row], width: int) -> str:
    """A title and aligned rows, whose last column is wrapped."""
    lines = [f'# {title}']
    name_width = max((len(name) for name, _, _ in rows), default=0)
    for name, value, text in rows:
        start = f'{name:<{name_width}}  {value:<16}  '
        wrapped = textwrap.wrap(text, max(30, width - len(start)), break_on_hyphens=False)
        lines.append((start + ''.join(wrapped[:1])).rstrip())
        lines += [' ' * len(start) + line for line in wrapped[1:]]
    return '\n'.join(lines)
