"""RPE-STDT on UCF101 (split 1).

    python -m vivit_jax.main --config=configs/ucf101_rpe_stdt.py \
        --config.data.root=/data/ucf101 --config.init_from=ViT-B_16.npz

Published top-1: 97.6 %, from an ImageNet ViT-B/16.
Batch size, learning rate and warm-up are taken from CTN, by the same authors.

`:runlocal` after the file name runs the same on the embedded data in about a minute;
`--mode=show` prints the schedule and the cost.
"""

from vivit_jax.config.presets import check_argument, published_rpe_stdt, runlocal


def get_config(arg=''):
    """`arg`: '' or 'runlocal'."""
    check_argument(arg, 'runlocal')
    config = published_rpe_stdt('ucf101')
    return runlocal(config) if arg == 'runlocal' else config
