"""ViViT's ladder of regularisation: B/16x2, factorized encoder, on EPIC-Kitchens-100.

    python -m vivit_jax.main --config=configs/epic_kitchens100_fe_ladder.py:kinetics,drop_path \
        --workdir=runs/ladder_2 --config.data.root=/data/epic_kitchens100 \
        --config.init_from=vivit_base_fe_kinetics400

Each word after the colon switches one rung on; without any, all are on. Source: ViViT (arXiv
2103.15691), table 4: top-1 accuracy of actions, each rung on top of those above it.

    rung             what it adds                             action
    none             random crops, mirroring, colour jitter   38.4 %
    kinetics         starts from Kinetics-400, not ImageNet   39.6 %
    drop_path        stochastic depth, 0.2 in the last block  40.2 %
    randaugment      2 operations of magnitude 15             41.1 %
    label_smoothing  0.2                                      43.1 %
    mixup            alpha 0.1                                43.7 %

With the rung `kinetics`, `init_from` must name a Kinetics-400 model; without it, an ImageNet-21k
ViT-B/16. As in the published recipe, RandAugment replaces colour jitter. `:none` is the lowest.

`:runlocal`, alone or with rungs, runs the same on the embedded data in about a minute.
`--mode=show` prints the schedule and the cost.
"""

from vivit_jax.config.presets import check_argument, published_vivit, runlocal

_IMAGENET, _KINETICS = 'ViT-B_16.npz', 'vivit_base_fe_kinetics400'

RUNGS = {
    'kinetics': {'init_from': _KINETICS},
    'drop_path': {'model': {'drop_path_rate': 0.2}},
    'randaugment': {
        'augment': {
            'randaugment_layers': 2,
            'randaugment_magnitude': 15.0,
            'color_jitter': 0.0,
            'color_drop': 0.0,
        }
    },
    'label_smoothing': {'train': {'label_smoothing': 0.2}},
    'mixup': {'augment': {'mixup_alpha': 0.1}},
}


def get_config(arg=''):
    """`arg`: '' for all rungs, or with commas between those to switch on and 'runlocal'.

    The rungs: 'kinetics', 'drop_path', 'randaugment', 'label_smoothing', 'mixup'; or 'none'.
    """
    words = [word for word in arg.split(',') if word]
    for word in words:
        check_argument(word, *RUNGS, 'none', 'runlocal')
    rungs = [word for word in words if word != 'runlocal'] or RUNGS
    config = published_vivit('vivit_fe', 'B/16x2', 'epic_kitchens100', num_epochs=50.0)
    config.init_from = _IMAGENET
    config.augment.update(color_jitter=0.8, color_drop=0.1)
    config.train.update(learning_rate=0.5)
    for rung in rungs:
        config.update(RUNGS.get(rung, {}))
    return runlocal(config) if 'runlocal' in words else config
