"""Checks the videos of a config, packs them into records, and measures how fast they are decoded.

    python -m vivit_jax.prepare check --config=configs/kinetics400_fe.py --output=checked
    python -m vivit_jax.prepare records --config=configs/kinetics400_fe.py --output=/data/tfds
    python -m vivit_jax.prepare bench --config=configs/kinetics400_fe.py

`check` opens every video, decodes three frames of it and lists what can be used, what is damaged,
short or missing; called again it goes on where it was. `records` packs the videos, as they are or
encoded anew, into ArrayRecord files that this library and TFDS read; called again it goes on, or
with --verify compares all that it has written. `bench` says how many clips a second this machine
decodes, and how many the model takes.
"""

if __name__ == '__main__':  # before the slow imports
    from vivit_jax.signals import end_on_ctrl_c

    end_on_ctrl_c()

import dataclasses
import os
import re
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_flags

from vivit_jax import terminal
from vivit_jax.annotations.dataset import Dataset
from vivit_jax.batches.load_dataset import load_dataset
from vivit_jax.errors import UserError

# Worker processes import this module anew: what needs JAX is imported where it is used.

_SPLITS = ('train', 'val', 'test')

_CONFIG = config_flags.DEFINE_config_file('config', help_string='A file of configs/[:argument].')
_OUTPUT = flags.DEFINE_string('output', None, 'Folder to write to.')
_SPLIT = flags.DEFINE_enum('split', None, _SPLITS, 'Only this one.')
_NUM_WORKERS = flags.DEFINE_integer(
    'num_workers', None, 'Processes; by default one for each core.', lower_bound=1
)
_NAME = flags.DEFINE_string('name', None, 'records: of the dataset; by default of the config.')
_SHORT_SIDE = flags.DEFINE_integer(
    'short_side',
    None,
    'records: encode anew with at most so many pixels on the short side, an even number.',
    lower_bound=16,
)
_GOP = flags.DEFINE_integer(
    'gop',
    None,
    'records: encode anew with a key frame every so many frames; 12 for parts and --short_side.',
    lower_bound=1,
)
_CRF = flags.DEFINE_integer(
    'crf',
    18,
    'records: loss of what is encoded anew, from 0 (none) to 51.',
    lower_bound=0,
    upper_bound=51,
)
_NUM_SHARDS = flags.DEFINE_integer(
    'num_shards', None, 'records: files of each split; by default of about 512 MB.', lower_bound=1
)
_VERIFY = flags.DEFINE_bool('verify', False, 'records: compare all that was written.')


def main(args: list[str]) -> int:
    """Runs a command; returns an exit status."""
    if len(args) != 1 or args[0] not in _COMMANDS:
        given = ' '.join(args) or 'none'
        raise UserError(f'name one command of {", ".join(_COMMANDS)}, not {given}; see --help')
    command = _COMMANDS[args[0]]
    own = {flag.name for flag in command.flags}
    others = {flag.name for other in _COMMANDS.values() for flag in other.flags} - own
    for name in sorted(others):
        if flags.FLAGS[name].present:
            raise UserError(f'--{name} is not for {args[0]}')
    return command.run(_CONFIG.value)


def _check(config: ConfigDict) -> int:
    from vivit_jax.config import load
    from vivit_jax.prepare.check import check

    output = _output()
    config.data.max_bad_fraction = 1.0  # they are to be counted
    videos = _videos(config)
    if _SPLIT.value:
        videos = dataclasses.replace(videos, splits={_SPLIT.value: videos.splits[_SPLIT.value]})
    check(
        videos,
        load.preprocessing(config),
        output,
        label_columns=config.data.label_columns,
        num_workers=_num_workers(),
    )
    return 0


def _pack(config: ConfigDict) -> int:
    from vivit_jax.config.command_line import given_config
    from vivit_jax.prepare.encode import Encoding
    from vivit_jax.prepare.pack import pack, verify
    from vivit_jax.prepare.plan import make_plan

    name = _NAME.value or Path(given_config()).name.partition('.')[0]
    if not re.fullmatch('[a-z][a-z0-9_]*', name):
        raise UserError(f'--name={name}: TFDS takes small letters, digits and _, as in kinetics400')
    if (_SHORT_SIDE.value or 0) % 2:
        raise UserError(f'--short_side={_SHORT_SIDE.value} must be even for H.264')
    output, began = _output(), time.perf_counter()
    plan = make_plan(
        _videos(config),
        output,
        name=name,
        encoding=Encoding(_SHORT_SIDE.value, _GOP.value, _CRF.value),
        label_columns=config.data.label_columns,
        split=_SPLIT.value,
        num_shards=_NUM_SHARDS.value,
    )
    totals = pack(plan, max_bad_fraction=config.data.max_bad_fraction, num_workers=_num_workers())
    seconds = time.perf_counter() - began
    print(
        f'{plan.folder}: {totals.videos:,} videos, {totals.bytes / 1e6:,.1f} MB in {totals.shards} '
        f'shards, {totals.skipped:,} skipped'
    )
    print(
        f'wrote {totals.written_shards} of these shards, {totals.written_bytes / 1e6:,.1f} MB in '
        f'{seconds:.0f} s, {totals.written_bytes / 1e6 / seconds:.1f} MB/s'
    )
    if totals.skipped:
        print(
            'skipped.csv has the reasons; to try these again, delete their shards and repeat this'
        )
    if _VERIFY.value:
        damaged = verify(plan, num_workers=_num_workers())
        for path, difference in damaged.items():
            print(f'damaged: {path}: {difference}')
        print(f'{len(damaged)} of {totals.shards} shards are damaged')
        if damaged:
            print('Delete them and repeat this to pack them again')
            return 1
    heads = ''.join(f' --config.data.label_columns={column}' for column in plan.classes)
    if plan.label_separator:
        heads += f' --config.data.label_separator={shlex.quote(plan.label_separator)}'
    print(
        f'Train:  --config.data.source=records --config.data.root={plan.folder}{heads}\n'
        f"TFDS:   tfds.data_source('{name}', split='{plan.wanted[0]}', data_dir='{output}')"
    )
    return 0


def _bench(config: ConfigDict) -> int:
    from vivit_jax.prepare.bench import bench

    bench(config)
    return 0


def _videos(config: ConfigDict) -> Dataset:
    videos = load_dataset(
        config.data,
        seed=config.seed,
        num_classes=config.model.num_classes,
        modality=config.model.modality or 'rgb',
        stretch_depth=config.preprocessing.stretch_depth,
    )
    if _SPLIT.value and _SPLIT.value not in videos.splits:
        raise UserError(f'--split={_SPLIT.value}: there are {", ".join(videos.splits)}')
    return videos


def _output() -> Path:
    if not _OUTPUT.value:
        raise UserError('name a folder to write to, as in --output=prepared')
    return Path(_OUTPUT.value).absolute()


def _num_workers() -> int:
    return _NUM_WORKERS.value or len(os.sched_getaffinity(0))


class _Command(NamedTuple):
    run: Callable[[ConfigDict], int]
    flags: Sequence[flags.FlagHolder]


_COMMANDS = {
    'check': _Command(_check, (_OUTPUT, _SPLIT, _NUM_WORKERS)),
    'records': _Command(
        _pack,
        (
            _OUTPUT,
            _SPLIT,
            _NUM_WORKERS,
            _NAME,
            _SHORT_SIDE,
            _GOP,
            _CRF,
            _NUM_SHARDS,
            _VERIFY,
        ),
    ),
    'bench': _Command(_bench, ()),
}


def _parse_flags(argv: list[str]) -> list[str]:
    from vivit_jax.config.command_line import parse_flags

    return parse_flags(argv)


if __name__ == '__main__':
    terminal.run(main, flags_parser=_parse_flags)
