"""ViViT-B/16x2 factorized encoder on Kinetics-400.

    python -m vivit_jax.main --config=configs/kinetics400_fe.py \
        --config.data.train_csv=/data/kinetics400/train.csv \
        --config.data.val_csv=/data/kinetics400/validate.csv

Source: ViViT (arXiv 2103.15691), tables 2 and 7; learning rate of the public configuration of this
model. Expected: 78.8 % top-1 in the paper's ablation, 78.4 % for the released checkpoint (4x3
views), both starting from an ImageNet-21k ViT-B/16; from scratch, expect far less.

Cost: 284.4 GFLOPs (multiply-adds) a clip forward, about three times as much for an update: 12.3e18
FLOPs (two per multiply-add) for 30 epochs of 240,000 clips. 8 H100 at 400 TFLOP/s each compute that
in 1.1 hours; decoding 7.2 million clips at 20 a second and core takes 100 core-hours, so that the
number of CPU cores decides. Both are estimates, not measurements.

`--config=configs/kinetics400_fe.py:runlocal` runs the same on the embedded data in a minute.
"""

from vivit_jax.config.presets import check_argument, runlocal
from vivit_jax.config.schema import default_config


def get_config(arg=''):
    """`arg`: '' or 'runlocal'."""
    check_argument(arg, 'runlocal')
    config = default_config('vivit_fe')
    config.model.update(size='B/16x2', temporal_num_layers=4, dtype='bfloat16')

    config.data.update(
        train_csv='data/kinetics400/train.csv', val_csv='data/kinetics400/validate.csv'
    )
    config.data.num_workers = 16

    config.augment.update(scale_jitter=(0.9, 1.33), flip=0.5, color_jitter=0.8, color_drop=0.1)

    config.train.update(
        batch_size=64,
        num_epochs=30.0,
        warmup_epochs=2.5,
        optimizer='sgd',
        learning_rate=0.05,
        momentum=0.9,
        clip_norm=1.0,
        checkpoint_every_epochs=1.0,
    )
    config.eval.update(every_epochs=1.0, batch_size=64, views='4x3')
    return runlocal(config) if arg == 'runlocal' else config
