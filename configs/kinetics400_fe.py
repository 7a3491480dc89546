"""ViViT-B/16x2, factorized encoder (model 2), on Kinetics-400.

    python -m vivit_jax.main --config=configs/kinetics400_fe.py \
        --config.data.root=/data/kinetics400 \
        --config.init_from=ViT-B_16.npz

Source: ViViT (arXiv 2103.15691), tables 2 and 7; learning rate of the public configuration of this
model. Expected: 78.8 % top-1 in the paper's ablation, 78.4 % for the released checkpoint (4x3
views), both starting from an ImageNet-21k ViT-B/16; from scratch, expect far less.

`:runlocal` after the file name runs the same on the embedded data in about a minute;
`--mode=show` prints the schedule and the cost.
"""

from vivit_jax.config.presets import check_argument, published_vivit, runlocal


def get_config(arg=''):
    """`arg`: '' or 'runlocal'."""
    check_argument(arg, 'runlocal')
    config = published_vivit('vivit_fe', 'B/16x2', 'kinetics400', num_epochs=30.0)
    config.augment.update(color_jitter=0.8, color_drop=0.1)
    config.train.update(learning_rate=0.05)
    return runlocal(config) if arg == 'runlocal' else config
