"""Your own videos, from weights: settings follow from the weights and from the number of videos.

    python -m vivit_jax.main --config=configs/finetune.py --workdir=runs/finetuned \
        --config.init_from=dinov2_small --config.data.root=my_videos

`init_from` is an image ViT, which becomes a factorized encoder, or a model for videos, such as the
run of a probe or of a training on other videos. `--config=configs/finetune.py:vivit_fsa` makes
another ViViT of an image ViT. Videos are given as for configs/custom.py.

The training says what it chose and why. Keys on the command line win:
`--config.preprocessing.crop_size=112` takes smaller clips, and `--config.train.num_epochs=20` fewer
epochs. See docs/few_videos.md.
"""

from vivit_jax.config.choices import CHOSEN
from vivit_jax.config.presets import check_argument, runlocal, unset
from vivit_jax.config.schema import default_config
from vivit_jax.models.registry import list_models


def get_config(arg=''):
    """`arg`: '', 'runlocal' or a model of `vivit_jax.list_models()`."""
    check_argument(arg, 'runlocal', *list_models())
    config = default_config(arg if arg in list_models() else 'vivit_fe')
    config.recipe = 'finetune'
    config.train.update(warmup_fraction=0.05, checkpoint_every_epochs=2.0)
    config.eval.update(every_epochs=2.0, batch_size=16)
    unset(config, *CHOSEN)
    if arg == 'runlocal':
        return runlocal(config)  # from scratch
    unset(config, *(f'preprocessing.{key}' for key in config.preprocessing))
    return config
