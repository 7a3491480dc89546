"""ConViViT on UCF101 (split 1).

    python -m vivit_jax.main --config=configs/ucf101_convivit.py \
        --config.data.root=/data/ucf101 --config.init_from=ViT-B_16.npz

Published top-1: 99.6 %, from an ImageNet ViT-B/16.
Only a summary of the paper was available: 16 frames, batch size, learning rate and augmentation
are chosen here.

`:runlocal` after the file name runs the same on the embedded data in about a minute;
`--mode=show` prints the schedule and the cost.
"""

from vivit_jax.config.presets import check_argument, published_convivit, runlocal


def get_config(arg=''):
    """`arg`: '' or 'runlocal'."""
    check_argument(arg, 'runlocal')
    config = published_convivit('ucf101')
    return runlocal(config) if arg == 'runlocal' else config
