"""ViViT-L/16x2, factorized encoder (model 2), on EPIC-Kitchens-100: verbs and nouns.

    python -m vivit_jax.main --config=configs/epic_kitchens100_fe_large.py \
        --config.data.root=/data/epic_kitchens100 \
        --config.init_from=vivit_large_kinetics400

Source: ViViT (arXiv 2103.15691), tables 6d and 7, and the public configuration. Expected, starting
from a Kinetics-400 model: action 44.0 %, verb 66.4 %, noun 56.8 % top-1 in the paper; action
43.6 % for the released checkpoint (4x1 views). From scratch, expect far less.

The loss is the mean over the two heads. The best action is the pair of verb and noun with the
largest product of the two softmaxes.

`:runlocal` after the file name runs the same on the embedded data in about a minute;
`--mode=show` prints the schedule and the cost.
"""

from vivit_jax.config.presets import check_argument, published_vivit, runlocal


def get_config(arg=''):
    """`arg`: '' or 'runlocal'."""
    check_argument(arg, 'runlocal')
    config = published_vivit('vivit_fe', 'L/16x2', 'epic_kitchens100', num_epochs=50.0)
    config.model.drop_path_rate = 0.2
    config.augment.update(randaugment_layers=2, randaugment_magnitude=15.0, mixup_alpha=0.1)
    config.train.update(learning_rate=0.5, label_smoothing=0.2)
    return runlocal(config) if arg == 'runlocal' else config
