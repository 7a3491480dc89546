"""CTN on EPIC-Kitchens-100: verbs and nouns.

    python -m vivit_jax.main --config=configs/epic_kitchens100_ctn.py \
        --config.data.root=/data/epic_kitchens100 --config.init_from=ViT-B_16.npz

Published top-1: 45.9 % (action), from an ImageNet ViT-B/16.
Sampling and views are chosen here. The loss is the mean over the two heads; an action is right
when both are.

Cost: 82 billion multiply-adds a clip forward, three times as much for an update: 3.3e18
FLOPs (two per multiply-add) for 100 epochs of 67,217 clips. One H100 at 400 TFLOP/s (40 % of its
peak in bfloat16) computes that in 2.3 hours, if decoding keeps up: 93 core-hours at 20 clips a
second and core. Estimates, not measurements.

`--config=configs/epic_kitchens100_ctn.py:runlocal` runs the same on the embedded data in about
a minute.
"""

from vivit_jax.config.presets import check_argument, published_ctn, runlocal


def get_config(arg=''):
    """`arg`: '' or 'runlocal'."""
    check_argument(arg, 'runlocal')
    config = published_ctn('epic_kitchens100')
    return runlocal(config) if arg == 'runlocal' else config
