"""MFST-Large on ChaLearn IsoGD, 249 gestures.

    python -m vivit_jax.main --config=configs/isogd_mfst.py --config.data.root=/data/isogd

Published top-1: 61.26 % of RGB, 61.29 % of depth (`:depth`), 68.47 % of both (`:rgbd`).
What Ma 2024 leaves open is as in `ntu60_mfst.py`, but nothing is mirrored, because gestures have a
left and a right. Depth videos of IsoGD are gray images.

`:runlocal`, alone or with a modality, runs the same on the embedded data in about a minute;
`--mode=show` prints the schedule and the cost.
"""

from vivit_jax.config.presets import check_argument, published_mfst, runlocal


def get_config(arg=''):
    """`arg`: '', or with a comma between a modality, `rgb`, 'depth' or `rgbd`, and 'runlocal'."""
    words = [word for word in arg.split(',') if word]
    for word in words:
        check_argument(word, 'rgb', 'depth', 'rgbd', 'runlocal')
    config = published_mfst('isogd')
    config.preprocessing.depth_range = (0.0, 255.0)
    for word in words:
        if word != 'runlocal':
            config.model.modality = word
    return runlocal(config) if 'runlocal' in words else config
