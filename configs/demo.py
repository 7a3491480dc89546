"""The embedded data: a small factorized encoder learns eight motions from video files.

    python -m vivit_jax.main --config=configs/demo.py

Two CPU cores need about a minute; see README.md for the accuracy to expect. Chance is 12.5 %.
`--config=configs/demo.py:ctn` trains another model for the same number of steps. `:blind` trains a
model that sees only single frames: its accuracy is the part that can be learned without motion.

`:image` trains a ViT for images, the spatial half of a factorized encoder, to name the shape of the
sprite in single frames of more videos, in two minutes. `:finetune` starts from this ViT, or from
scratch without `init_from`, and learns the motions by ViViT's own recipe (SGD):

    python -m vivit_jax.main --config=configs/demo.py:image
    python -m vivit_jax.main --config=configs/demo.py:finetune --config.init_from=runs/demo-image

The videos have a depth: `--config.model.modality=depth` learns from depth, and `rgbd` from both.
"""

from vivit_jax.config.presets import check_argument, small
from vivit_jax.models.registry import list_models
from vivit_jax.video.synthetic import DEPTH_RANGE


def get_config(arg=''):
    """`arg`: '', 'blind', 'image', 'finetune' or a model of `vivit_jax.list_models()`."""
    check_argument(arg, 'blind', 'image', 'finetune', *list_models())
    models = {'': 'vivit_fe', 'blind': 'vivit_fe', 'image': 'vivit_joint', 'finetune': 'vivit_fe'}
    config = small(models.get(arg, arg), hidden_size=96, mlp_dim=192, tubelet_size=(4, 8, 8))
    if arg == 'rpe_stdt':  # longer tubelets would leave too few frames to select from
        config.model.tubelet_size = (2, 8, 8)
    if arg == 'blind':
        config.model.update(
            tokenizer='uniform_frames',
            tubelet_size=(1, 8, 8),
            num_sampled_frames=4,
            temporal_num_layers=0,
        )
    config.preprocessing.update(num_frames=8, frame_stride=2, short_side=56, crop_size=48)

    config.data.source = 'synthetic'
    config.preprocessing.depth_range = DEPTH_RANGE

    config.train.update(
        batch_size=32,
        num_epochs=40.0,
        warmup_fraction=0.05,
        optimizer='adamw',
        learning_rate=1e-3,
        weight_decay=0.05,
        checkpoint_every_epochs=5.0,
    )
    config.eval.update(every_epochs=5.0, batch_size=32, views='2x3')

    if arg == 'image':
        config.model.update(
            num_layers=2, tokenizer='uniform_frames', tubelet_size=(1, 8, 8), num_sampled_frames=1
        )
        config.preprocessing.num_frames = 1
        config.data.label_columns = ('sprite',)
        config.data.synthetic.num_train = 4096
        config.train.num_epochs = 24.0
    if arg == 'finetune':
        config.model.tubelet_size = (2, 8, 8)
        config.init.reinit = ('head',)
        config.train.update(optimizer='sgd', learning_rate=0.1, weight_decay=0.0)
    return config
