"""MFST-Large on NTU RGB+D, 60 actions.

    python -m vivit_jax.main --config=configs/ntu60_mfst.py --config.data.root=/data/ntu60
    python -m vivit_jax.main --config=configs/ntu60_mfst.py:cross_view,depth \
        --config.data.root=/data/ntu60

Published top-1, cross-subject and cross-view: 92.1 and 95.8 % of RGB; 93.8 and 97.3 % of depth;
94.6 and 98.2 % of both. `:cross_view` chooses the other protocol, `:depth` and `:rgbd` what the
model sees.
Ma 2024 leaves open how RGB and depth are fused, and tells neither sampling nor batch: sampling,
flips, label smoothing and clipping follow De+Recouple (arXiv 2112.09129), but without its rotations
by up to 10 degrees; batch, mixup's strength and the range of depths are chosen here.

`:runlocal`, alone or with others, runs the same on the embedded data in about a minute;
`--mode=show` prints the schedule and the cost.
"""

from vivit_jax.config.presets import check_argument, published_mfst, runlocal


def get_config(arg=''):
    """`arg`: '', or with commas between 'cross_view', a modality, such as 'rgbd', and 'runlocal'.

    Without them, the protocol is `cross_subject` and the modality `rgb`; another is `depth`.
    """
    words = [word for word in arg.split(',') if word]
    for word in words:
        check_argument(word, 'cross_subject', 'cross_view', 'rgb', 'depth', 'rgbd', 'runlocal')
    config = published_mfst('ntu60')
    config.preprocessing.depth_range = (4000.0, 500.0)  # mm, of a Kinect
    config.preprocessing.stretch_depth = True  # 512x424 pixels, beside RGB of 1920x1080
    for word in words:
        if word in ('cross_subject', 'cross_view'):
            config.data.protocol = word
        elif word != 'runlocal':
            config.model.modality = word
    return runlocal(config) if 'runlocal' in words else config
