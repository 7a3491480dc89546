"""ConViViT on UCF101 (split 1).

    python -m vivit_jax.main --config=configs/ucf101_convivit.py \
        --config.data.root=/data/ucf101 --config.init_from=ViT-B_16.npz

Published top-1: 99.6 %, from an ImageNet ViT-B/16.
Its paper is known in summary only: 16 frames, batch, learning rate and augmentation are
chosen here.

Cost: 473 billion multiply-adds a clip forward, three times as much for an update: 1.4e18
FLOPs (two per multiply-add) for 50 epochs of 9,537 clips. One H100 at 400 TFLOP/s (40 % of its
peak in bfloat16) computes that in 0.9 hours, if decoding keeps up: 7 core-hours at 20 clips a
second and core. Estimates, not measurements.

`--config=configs/ucf101_convivit.py:runlocal` runs the same on the embedded data in about a minute.
"""

from vivit_jax.config.presets import check_argument, published_convivit, runlocal


def get_config(arg=''):
    """`arg`: '' or 'runlocal'."""
    check_argument(arg, 'runlocal')
    config = published_convivit('ucf101')
    return runlocal(config) if arg == 'runlocal' else config
