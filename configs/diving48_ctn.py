"""CTN on Diving48 (V2 labels).

    python -m vivit_jax.main --config=configs/diving48_ctn.py \
        --config.data.root=/data/diving48 --config.init_from=ViT-B_16.npz

Published top-1: 78.2 %, from an ImageNet ViT-B/16.
Sampling and views are chosen here. Nothing is mirrored, as a dive has a direction.

Cost: 82 billion multiply-adds a clip forward, three times as much for an update: 0.7e18
FLOPs (two per multiply-add) for 100 epochs of 15,027 clips. One H100 at 400 TFLOP/s (40 % of its
peak in bfloat16) computes that in 0.5 hours, if decoding keeps up: 21 core-hours at 20 clips a
second and core. Estimates, not measurements.

`--config=configs/diving48_ctn.py:runlocal` runs the same on the embedded data in about a minute.
"""

from vivit_jax.config.presets import check_argument, published_ctn, runlocal


def get_config(arg=''):
    """`arg`: '' or 'runlocal'."""
    check_argument(arg, 'runlocal')
    config = published_ctn('diving48')
    return runlocal(config) if arg == 'runlocal' else config
