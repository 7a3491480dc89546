"""Your own videos: a folder for each class, or CSV files.

    python -m vivit_jax.main --config=configs/custom.py --workdir=runs/mine \
        --config.data.root=my_videos

reads `my_videos/<class>/<video>`, or `my_videos/train/<class>/<video>` and so on for `val` and
`test`. Without these splits, 20 % of the videos are drawn for validation (`data.val_fraction`).

    python -m vivit_jax.main --config=configs/custom.py --workdir=runs/mine \
        --config.data.train_csv=my_videos/train.csv \
        --config.data.val_csv=my_videos/val.csv \
        --config.data.test_csv=my_videos/test.csv

A CSV has the header `video_path,label` and a line per video; paths start at the CSV's folder, or
at `--config.data.root`. val_csv chooses the best checkpoint, which predictions and
`--mode=evaluate` use; test_csv is evaluated with the last weights at the end. Both may be left
out, and `--config.data.val_fraction=0.2` draws val_csv from train_csv. Labels are names, or numbers
from 0. `--mode=show` prints every key, the schedule and the cost.

The model is small and starts from scratch: it suits some hundred short videos and trains on a CPU.
A clip spans the whole video and a tubelet the whole clip, so that the first layer sees motion; with
little data, this learned much faster than shorter tubelets. If a mirrored action is still the same
action, set `--config.augment.flip=0.5`. `--config=configs/custom.py:ctn` trains another model, with
tubelets of half the clip. For larger data see kinetics400_fe.py.

Measured on MSR-Action3D (20 actions, 283 training and 273 test videos of other people, chance 5 %):
see docs/results.md.
"""

from vivit_jax.config.presets import check_argument, runlocal, small
from vivit_jax.models.registry import list_models


def get_config(arg=''):
    """`arg`: '', 'runlocal' or a model of `vivit_jax.list_models()`."""
    check_argument(arg, 'runlocal', *list_models())
    model = arg if arg in list_models() else 'vivit_fe'
    config = small(model, hidden_size=128, mlp_dim=512, tubelet_size=(8, 8, 8), drop_path_rate=0.1)
    if model == 'vivit_fe':
        config.model.update(num_layers=4, tubelet_size=(16, 8, 8))
    config.preprocessing.update(
        num_frames=16, sampling='segments', short_side=72, crop_size=64, interpolation='area'
    )

    config.augment.resized_area = (0.6, 1.0)

    config.train.update(
        batch_size=16,
        num_epochs=300.0,
        warmup_fraction=1 / 30,
        optimizer='adamw',
        learning_rate=1e-3,
        weight_decay=0.05,
        label_smoothing=0.1,
        checkpoint_every_epochs=25.0,
    )
    config.eval.update(every_epochs=25.0, batch_size=16, views='4x3')
    return runlocal(config) if arg == 'runlocal' else config
