"""Trains or tests a model from a config, or shows what a config means.

python -m vivit_jax.main --config=configs/demo.py
python -m vivit_jax.main --config=configs/demo.py --mode=evaluate --config.eval.views=4x3
python -m vivit_jax.main --config=configs/demo.py --mode=show
python -m vivit_jax.main --config=configs/demo.py --seeds=0,1,2
python -m vivit_jax.main --resume=runs/demo
"""

if __name__ == '__main__':  # before the slow imports
    from vivit_jax.signals import end_on_ctrl_c

    end_on_ctrl_c()

import shutil
import sys
import time
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from vivit_jax import terminal
from vivit_jax.errors import UserError

_BEGAN = time.monotonic()

# Decoding workers import this module anew, so that functions import the modules that need JAX.

_CONFIG = config_flags.DEFINE_config_file(
    'config',
    help_string='A config: demo, configs/demo.py[:argument], a file of yours, or config.json of a '
    'run. By default the config of the run folder.',
)
_WORKDIR = flags.DEFINE_string('workdir', None, 'Run folder; by default runs/<config name>.')
_RESUME = flags.DEFINE_string('resume', None, 'A run folder: goes on with this run.')
_TAKE_OVER = flags.DEFINE_boolean(
    'take_over', False, 'Takes the run folder from a training that seems to use it, but is gone.'
)
_MODE = flags.DEFINE_enum(
    'mode',
    'train',
    ['train', 'evaluate', 'show'],
    'train; evaluate; or show every config key, the schedule and the cost, and run nothing.',
)
_CHECKPOINT = flags.DEFINE_string(
    'checkpoint',
    None,
    'Weights to evaluate, in any form that vivit_jax.convert reads; by default the workdir.',
)
_NUM_VIDEOS = flags.DEFINE_integer(
    'num_videos',
    None,
    'With --mode=show: the number of training videos, if lists and catalog do not tell.',
    lower_bound=1,
)
_SEEDS = flags.DEFINE_list(
    'seeds',
    None,
    'Several seeds, such as 0,1,2: trains or evaluates WORKDIR/seed_0 and so on, and compares.',
)
_PROFILE_STEPS = flags.DEFINE_list(
    'profile_steps',
    None,
    'The first and the last step, such as 10,20, of a trace in WORKDIR/profile.',
)


def main(args: list[str]) -> int:
    """Runs `--mode`; returns an exit status."""
    if args:
        raise UserError(f'unexpected {args}; overrides have the form --config.train.batch_size=8')
    if _CHECKPOINT.value and _MODE.value != 'evaluate':
        raise UserError(
            '--checkpoint is for --mode=evaluate; to start from weights give --config.init_from='
            f'{_CHECKPOINT.value}'
        )
    _check_flags()
    if _MODE.value == 'show':
        return _show()
    from vivit_jax.parallel import distributed
    from vivit_jax.parallel.compilation_cache import use_compilation_cache
    from vivit_jax.train.seeds import for_each_seed, parse_seeds

    seeds = None if _SEEDS.value is None else parse_seeds(_SEEDS.value)
    run = _evaluate if _MODE.value == 'evaluate' else _train
    distributed.initialize(_CONFIG.value.parallel.lost_sec)
    use_compilation_cache()
    workdir = Path(_RESUME.value or _WORKDIR.value or _default_workdir())
    if seeds:
        return for_each_seed(seeds, _CONFIG.value, workdir, run, _MODE.value)
    return run(_CONFIG.value, workdir)[0]


def _check_flags():
    """Raises a UserError if flags exclude each other."""
    from vivit_jax.config.command_line import overrides

    if _PROFILE_STEPS.value is not None and (_MODE.value != 'train' or _SEEDS.value is not None):
        raise UserError('--profile_steps is for a training of one seed')
    if _SEEDS.value is None:
        return
    if _MODE.value == 'show':
        raise UserError('--seeds is for --mode=train and --mode=evaluate')
    if _CHECKPOINT.value or _RESUME.value:
        raise UserError(
            '--seeds takes the checkpoints of WORKDIR/seed_0 and so on: give --config and '
            '--workdir, and leave out --checkpoint and --resume'
        )
    if 'seed' in overrides():
        raise UserError('--seeds and --config.seed both say the seed: leave out one')


def _evaluate(config: ConfigDict, workdir: Path) -> tuple[int, dict[str, float]]:
    """Exit status and metrics."""
    from vivit_jax.evaluation.evaluate_checkpoint import evaluate_checkpoint

    split, metrics = evaluate_checkpoint(config, workdir, Path(_CHECKPOINT.value or workdir))
    return 0, {f'{split}/{name}@{config.eval.views}': x for name, x in metrics.items()}


def _train(config: ConfigDict, workdir: Path) -> tuple[int, dict[str, float]]:
    """Exit status, and metrics of the last validation and of the test."""
    from vivit_jax.train.loop import Trainer
    from vivit_jax.train.profiling import parse_profile_steps

    steps = None if _PROFILE_STEPS.value is None else parse_profile_steps(_PROFILE_STEPS.value)
    began = None if _SEEDS.value else _BEGAN
    trainer = Trainer(config, workdir, began, _TAKE_OVER.value, steps)
    return trainer.run(), trainer.results


def _show() -> int:
    from vivit_jax.config.command_line import given_config, overrides
    from vivit_jax.config.show import describe
    from vivit_jax.train.recipe import complete

    for line in complete(_CONFIG.value, _NUM_VIDEOS.value):
        print(line)
    # A pipe gets one line for each key.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 1000
    print(describe(_CONFIG.value, given_config(), overrides(), _NUM_VIDEOS.value, width))
    return 0


def _default_workdir() -> Path:
    """`runs/demo-ctn` for `configs/demo.py:ctn`, and the run folder for its `config.json`."""
    from vivit_jax.config.command_line import given_config

    config = Path(given_config())
    if config.suffix == '.json':
        return config.parent
    return Path('runs') / config.name.replace('.py', '').replace(':', '-')


def _parse_flags(argv: list[str]) -> list[str]:
    from vivit_jax.config.command_line import parse_flags

    return parse_flags(argv)


if __name__ == '__main__':
    terminal.run(main, flags_parser=_parse_flags, cleans_up=False)
