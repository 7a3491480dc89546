"""V4D ResNet-50 on Kinetics-400.

    python -m vivit_jax.main --config=configs/kinetics400_v4d.py \
        --config.data.root=/data/kinetics400 --config.init_from=resnet50.pth

The recipe is that of V4D's public code: four units of eight frames at stride 8, 150 epochs.

`:runlocal` after the file name runs the same on the embedded data in about a minute;
`--mode=show` prints the schedule and the cost.
"""

from vivit_jax.config.presets import check_argument, published_f4d, runlocal


def get_config(arg=''):
    """`arg`: '' or 'runlocal'."""
    check_argument(arg, 'runlocal')
    config = published_f4d('kinetics400', model='v4d')
    config.preprocessing.frame_stride = 8
    config.train.update(
        batch_size=64, num_epochs=150.0, decay_epochs=(70.0, 110.0, 140.0), clip_norm=20.0
    )
    return runlocal(config) if arg == 'runlocal' else config
