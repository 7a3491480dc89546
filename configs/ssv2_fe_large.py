"""ViViT-L/16x2, factorized encoder (model 2), on Something-Something v2 (174 classes).

    python -m vivit_jax.main --config=configs/ssv2_fe_large.py \
        --config.data.root=/data/ssv2 \
        --config.init_from=vivit_large_kinetics400

Source: ViViT (arXiv 2103.15691), tables 6e and 7; learning rate and resolution of the public
configuration (0.5 in the paper). Expected: 65.4 % top-1 (4x3 views), starting from a Kinetics-400
model; from scratch, expect far less.

Left and right are part of six classes. The original training mirrors these clips all the same; this
config mirrors none. `--config.augment.flip=0.5` mirrors clips and exchanges these labels.

`:runlocal` after the file name runs the same on the embedded data in about a minute;
`--mode=show` prints the schedule and the cost.
"""

from vivit_jax.config.presets import check_argument, published_vivit, runlocal


def get_config(arg=''):
    """`arg`: '' or 'runlocal'."""
    check_argument(arg, 'runlocal')
    config = published_vivit('vivit_fe', 'L/16x2', 'ssv2', num_epochs=35.0)
    config.model.drop_path_rate = 0.3
    config.augment.update(randaugment_layers=2, randaugment_magnitude=20.0, mixup_alpha=0.3)
    config.train.update(learning_rate=0.4, label_smoothing=0.3)
    return runlocal(config) if arg == 'runlocal' else config
