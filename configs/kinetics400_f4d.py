"""F4D on Kinetics-400.

    python -m vivit_jax.main --config=configs/kinetics400_f4d.py \
        --config.data.root=/data/kinetics400 --config.init_from=resnet50.pth

Published top-1: 81.2 % with units of 16 frames (10 units, 3 crops), from ImageNet weights.
The paper states neither the weight decay (V4D's is taken) nor how the scale of the crops varies.

`:runlocal` after the file name runs the same on the embedded data in about a minute;
`--mode=show` prints the schedule and the cost.
"""

from vivit_jax.config.presets import check_argument, published_f4d, runlocal


def get_config(arg=''):
    """`arg`: '' or 'runlocal'."""
    check_argument(arg, 'runlocal')
    config = published_f4d('kinetics400')
    return runlocal(config) if arg == 'runlocal' else config
