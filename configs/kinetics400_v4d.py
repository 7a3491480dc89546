"""V4D on Kinetics-400.

    python -m vivit_jax.main --config=configs/kinetics400_v4d.py \
        --config.data.root=/data/kinetics400 --config.init_from=resnet50.safetensors

Source: V4D (arXiv 2002.07442), section 4, and its public code: SGD, batch 64, learning rate 0.01,
a tenth at epochs 70, 110 and 140 of 150; 4 units of 8 frames at stride 8; the test takes 10 units
and 3 crops. The classifier starts at zero, and not at random.

`:runlocal` after the file name runs the same on the embedded data in about a minute;
`--mode=show` prints the schedule and the cost.
"""

from vivit_jax.config.presets import check_argument, published_f4d, runlocal


def get_config(arg=''):
    """`arg`: '' or 'runlocal'."""
    check_argument(arg, 'runlocal')
    config = published_f4d('v4d', 'kinetics400', 150.0, 70, 110, 140)
    config.preprocessing.frame_stride = 8
    config.train.batch_size = 64
    return runlocal(config) if arg == 'runlocal' else config
