"""Trains or tests a model from a config, or shows what a config means.

python -m vivit_jax.main --config=configs/demo.py
python -m vivit_jax.main --config=configs/demo.py --mode=evaluate --config.eval.views=4x3
python -m vivit_jax.main --config=configs/demo.py --mode=show
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
from ml_collections import config_flags

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


def main(args: list[str]) -> int:
    """Runs `--mode`; returns an exit status."""
    if args:
        raise UserError(f'unexpected {args}; overrides have the form --config.train.batch_size=8')
    if _CHECKPOINT.value and _MODE.value != 'evaluate':
        raise UserError(
            '--checkpoint is for --mode=evaluate; to start from weights give --config.init_from='
            f'{_CHECKPOINT.value}'
        )
    if _MODE.value == 'show':
        return _show()
    from vivit_jax.evaluation.evaluate_checkpoint import evaluate_checkpoint
    from vivit_jax.parallel import distributed
    from vivit_jax.parallel.compilation_cache import use_compilation_cache
    from vivit_jax.train.loop import Trainer

    distributed.initialize(_CONFIG.value.parallel.lost_sec)
    use_compilation_cache()
    workdir = Path(_RESUME.value or _WORKDIR.value or _default_workdir())
    if _MODE.value == 'evaluate':
        evaluate_checkpoint(_CONFIG.value, workdir, Path(_CHECKPOINT.value or workdir))
    else:
        return Trainer(_CONFIG.value, workdir, _BEGAN, _TAKE_OVER.value).run()
    return 0


def _show() -> int:
    from vivit_jax.config.command_line import given_config, overrides
    from vivit_jax.config.show import describe

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
