"""ViViT-L/16x2, factorized encoder (model 2), on Moments in Time (339 classes).

    python -m vivit_jax.main --config=configs/moments_in_time_fe_large.py \
        --config.data.root=/data/moments_in_time \
        --config.init_from=ViT-L_16.npz

Source: ViViT (arXiv 2103.15691), tables 6c and 7. Expected: about 38 % top-1, starting from an
ImageNet-21k ViT-L/16; from scratch, expect far less. The paper does not give the views for this
dataset; the config has 4x3.

`:runlocal` after the file name runs the same on the embedded data in about a minute;
`--mode=show` prints the schedule and the cost.
"""

from vivit_jax.config.presets import check_argument, published_vivit, runlocal


def get_config(arg=''):
    """`arg`: '' or 'runlocal'."""
    check_argument(arg, 'runlocal')
    config = published_vivit('vivit_fe', 'L/16x2', 'moments_in_time', num_epochs=10.0)
    config.augment.update(color_jitter=0.8, color_drop=0.1)
    config.train.update(learning_rate=0.25)
    return runlocal(config) if arg == 'runlocal' else config
