"""F4D on HMDB51 (split 1).

    python -m vivit_jax.main --config=configs/hmdb51_f4d.py \
        --config.data.root=/data/hmdb51 --config.init_from=resnet50.pth

Published top-1: 84.3 % with units of 16 frames (10 units, 3 crops), from Kinetics-400 weights.
The paper states neither the weight decay (V4D's is taken) nor how the scale of the crops varies.

`:runlocal` after the file name runs the same on the embedded data in about a minute;
`--mode=show` prints the schedule and the cost.
"""

from vivit_jax.config.presets import check_argument, published_f4d, runlocal


def get_config(arg=''):
    """`arg`: '' or 'runlocal'."""
    check_argument(arg, 'runlocal')
    config = published_f4d('hmdb51')
    return runlocal(config) if arg == 'runlocal' else config
