"""Trains or tests a model from a config.

python -m vivit_jax.main --config=configs/demo.py
python -m vivit_jax.main --config=configs/demo.py --mode=evaluate --config.eval.views=4x3
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from vivit_jax import terminal
from vivit_jax.errors import UserError

# Decoding workers import this module anew: what needs JAX is imported where it is used.

_CONFIG = config_flags.DEFINE_config_file('config', help_string='A file of configs/[:argument].')
_WORKDIR = flags.DEFINE_string('workdir', None, 'Run folder; by default runs/<config name>.')
_MODE = flags.DEFINE_enum('mode', 'train', ['train', 'evaluate'], 'What to do.')
_CHECKPOINT = flags.DEFINE_string(
    'checkpoint',
    None,
    'What to evaluate: whatever vivit_jax.convert reads; by default the workdir.',
)


def main(args: list[str]) -> int:
    """Runs `--mode`; returns an exit status."""
    from vivit_jax.evaluation.evaluate_checkpoint import evaluate_checkpoint
    from vivit_jax.parallel import distributed
    from vivit_jax.train.loop import Trainer

    if args:
        raise UserError(f'unexpected {args}; overrides have the form --config.train.batch_size=8')
    if _CHECKPOINT.value and _MODE.value == 'train':
        raise UserError(
            '--checkpoint is for --mode=evaluate; to start from weights give --config.init_from='
            f'{_CHECKPOINT.value}'
        )
    distributed.initialize()
    file = config_flags.get_config_filename(flags.FLAGS['config'])
    name = Path(file).name.replace('.py', '').replace(':', '-')
    workdir = Path(_WORKDIR.value or Path('runs') / name)
    if _MODE.value == 'evaluate':
        evaluate_checkpoint(_CONFIG.value, workdir, Path(_CHECKPOINT.value or workdir))
    else:
        return Trainer(_CONFIG.value, workdir).run()
    return 0


def _parse_flags(argv: list[str]) -> list[str]:
    from vivit_jax.config.load import parse_flags

    return parse_flags(argv)


if __name__ == '__main__':
    flags.mark_flag_as_required('config')
    terminal.run(main, flags_parser=_parse_flags)
