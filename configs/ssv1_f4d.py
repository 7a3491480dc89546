"""F4D on Something-Something V1.

    python -m vivit_jax.main --config=configs/ssv1_f4d.py \
        --config.data.root=/data/ssv1 --config.init_from=resnet50.pth

Published top-1: 57.5 % with ImageNet and Kinetics-400 weights and blocks in conv2 to conv5, 54.9 %
with ImageNet weights alone (10 units, 3 crops).
The paper states neither the weight decay (V4D's is taken) nor how the scale of the crops varies.

`:runlocal` after the file name runs the same on the embedded data in about a minute;
`--mode=show` prints the schedule and the cost.
"""

from vivit_jax.config.presets import check_argument, published_f4d, runlocal


def get_config(arg=''):
    """`arg`: '' or 'runlocal'."""
    check_argument(arg, 'runlocal')
    config = published_f4d('ssv1')
    return runlocal(config) if arg == 'runlocal' else config
