"""F4D on HMDB51 (split 1).

    python -m vivit_jax.main --config=configs/hmdb51_f4d.py \
        --config.data.root=/data/hmdb51 --config.init_from=runs/kinetics400_f4d

Source: F4D (Al-Saad et al. 2024), section 4: SGD, batch 128, learning rate 0.01, a tenth at epochs
20, 40 and 60 of 80; 4 units of 8 frames that span 32 frames each; the test takes 10 units and 3
crops. Units of 16 frames span the same 32 frames. Expected: 84.3 % top-1, starting from a
Kinetics-400 model.

`:runlocal` after the file name runs the same on the embedded data in about a minute;
`--mode=show` prints the schedule and the cost.
"""

from vivit_jax.config.presets import check_argument, published_f4d, runlocal


def get_config(arg=''):
    """`arg`: '' or 'runlocal'."""
    check_argument(arg, 'runlocal')
    config = published_f4d('f4d', 'hmdb51', 80.0, 20, 40, 60)
    config.preprocessing.update(num_frames=16, frame_stride=2)
    return runlocal(config) if arg == 'runlocal' else config
