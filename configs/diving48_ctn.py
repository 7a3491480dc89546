"""CTN on Diving48 (V2 labels).

    python -m vivit_jax.main --config=configs/diving48_ctn.py \
        --config.data.root=/data/diving48 --config.init_from=ViT-B_16.npz

Published top-1: 78.2 %, from an ImageNet ViT-B/16.
Sampling and views are chosen here. Nothing is mirrored, because dives have a direction.

`:runlocal` after the file name runs the same on the embedded data in about a minute;
`--mode=show` prints the schedule and the cost.
"""

from vivit_jax.config.presets import check_argument, published_ctn, runlocal


def get_config(arg=''):
    """`arg`: '' or 'runlocal'."""
    check_argument(arg, 'runlocal')
    config = published_ctn('diving48')
    return runlocal(config) if arg == 'runlocal' else config
