"""RPE-STDT on Diving48 (V2 labels).

    python -m vivit_jax.main --config=configs/diving48_rpe_stdt.py \
        --config.data.root=/data/diving48 --config.init_from=ViT-B_16.npz

Published top-1: 81.8 %, from an ImageNet ViT-B/16.
Batch size, learning rate and warm-up are taken from CTN, by the same authors. Nothing is mirrored,
because dives have a direction.

`:runlocal` after the file name runs the same on the embedded data in about a minute;
`--mode=show` prints the schedule and the cost.
"""

from vivit_jax.config.presets import check_argument, published_rpe_stdt, runlocal


def get_config(arg=''):
    """`arg`: '' or 'runlocal'."""
    check_argument(arg, 'runlocal')
    config = published_rpe_stdt('diving48')
    return runlocal(config) if arg == 'runlocal' else config
