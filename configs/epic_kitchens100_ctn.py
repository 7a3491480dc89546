"""CTN on EPIC-Kitchens-100: verbs and nouns.

    python -m vivit_jax.main --config=configs/epic_kitchens100_ctn.py \
        --config.data.root=/data/epic_kitchens100 --config.init_from=ViT-B_16.npz

Published top-1: 45.9 % (action), from an ImageNet ViT-B/16.
Sampling and views are chosen here. The loss is the mean over the two heads; an action counts as
right if verb and noun are right.

`:runlocal` after the file name runs the same on the embedded data in about a minute;
`--mode=show` prints the schedule and the cost.
"""

from vivit_jax.config.presets import check_argument, published_ctn, runlocal


def get_config(arg=''):
    """`arg`: '' or 'runlocal'."""
    check_argument(arg, 'runlocal')
    config = published_ctn('epic_kitchens100')
    return runlocal(config) if arg == 'runlocal' else config
