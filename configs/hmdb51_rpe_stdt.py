"""RPE-STDT on HMDB51 (split 1).

    python -m vivit_jax.main --config=configs/hmdb51_rpe_stdt.py \
        --config.data.root=/data/hmdb51 --config.init_from=ViT-B_16.npz

Published top-1: 79.3 %, from an ImageNet ViT-B/16.
Batch, learning rate and warm-up are those of CTN, by the same authors.

Cost: 284 billion multiply-adds a clip forward, three times as much for an update: 0.6e18
FLOPs (two per multiply-add) for 100 epochs of 3,570 clips. One H100 at 400 TFLOP/s (40 % of its
peak in bfloat16) computes that in 0.4 hours, if decoding keeps up: 5 core-hours at 20 clips a
second and core. Estimates, not measurements.

`--config=configs/hmdb51_rpe_stdt.py:runlocal` runs the same on the embedded data in about a minute.
"""

from vivit_jax.config.presets import check_argument, published_rpe_stdt, runlocal


def get_config(arg=''):
    """`arg`: '' or 'runlocal'."""
    check_argument(arg, 'runlocal')
    config = published_rpe_stdt('hmdb51')
    return runlocal(config) if arg == 'runlocal' else config
