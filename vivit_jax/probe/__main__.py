"""Trains classifiers on features of a frozen model, and keeps the best.

    python -m vivit_jax.probe --checkpoint=dinov2_small --data=videos --output=runs/probe
    python -m vivit_jax.probe --checkpoint=dinov2_small --train_csv=a.csv --test_csv=b.csv \
        --output=runs/probe

The checkpoint is an image ViT, a run folder or whatever else `vivit_jax.convert` reads. Features
are computed once; then nearest neighbours, ridge regression, linear classifiers and a pooling by
attention are tried, each with many settings. The best on held-out videos becomes a model in the
output folder, which `predict`, `--mode=evaluate` and `convert` take like any other.
"""

if __name__ == '__main__':  # before the slow imports
    from vivit_jax.signals import end_on_ctrl_c

    end_on_ctrl_c()

import logging
from pathlib import Path

from absl import flags

from vivit_jax import terminal
from vivit_jax.errors import UserError

_log = logging.getLogger('vivit_jax.probe')  # this module's own name is __main__

# Decoding workers import this module anew, so that `main` imports the modules that need JAX.

_CHECKPOINT = flags.DEFINE_string(
    'checkpoint', None, 'An image ViT, a run folder, or whatever vivit_jax.convert reads.'
)
_OUTPUT = flags.DEFINE_string('output', None, 'A folder for the model and the features.')
_DATA = flags.DEFINE_string('data', '', 'A folder with a folder of videos for each class.')
_CSV = {
    split: flags.DEFINE_string(
        f'{split}_csv', '', f'{use}: a .csv with the header "video_path,label".'
    )
    for split, use in {
        'train': 'Videos to train on',
        'val': 'Videos by which to choose the head; without them, parts of the training videos',
        'test': 'Videos to test the chosen head on',
    }.items()
}
_LABEL_SEPARATOR = flags.DEFINE_string(
    'label_separator',
    '',
    "What stands between the labels of a video, such as ';'; by default each has one label.",
)
_VIEWS = flags.DEFINE_string('views', '1x1', 'Temporal x spatial clips of each video.')
_ATTENTIVE = flags.DEFINE_bool('attentive', True, 'Try pooling by attention, the slowest head.')
_FRAMES = flags.DEFINE_integer(
    'frames', None, 'Of an image ViT: frames of a clip; by default 16.', lower_bound=1
)
_CROP_SIZE = flags.DEFINE_integer(
    'crop_size', None, 'Of an image ViT: pixels of the side; by default 224.', lower_bound=1
)
_BATCH_SIZE = flags.DEFINE_integer(
    'batch_size',
    None,
    'Clips computed together; by default 1 on a CPU, 8 elsewhere.',
    lower_bound=1,
)
_NUM_WORKERS = flags.DEFINE_integer('num_workers', 2, 'Decoding processes.', lower_bound=0)
_SEED = flags.DEFINE_integer('seed', 0, 'Seed of all that is random.')


def main(arguments: list[str]) -> int:
    """Trains and keeps the best head."""
    if arguments:
        raise UserError(f'unexpected {arguments}: name the videos with --data or --train_csv')
    from vivit_jax.parallel.compilation_cache import use_compilation_cache
    from vivit_jax.probe.probe import Probe

    use_compilation_cache()
    files = {f'{split}_csv': flag.value for split, flag in _CSV.items()}
    Probe(
        checkpoint=_CHECKPOINT.value,
        output=Path(_OUTPUT.value),
        files=files,
        folder=_DATA.value,
        label_separator=_LABEL_SEPARATOR.value,
        views=_VIEWS.value,
        is_attentive=_ATTENTIVE.value,
        num_frames=_FRAMES.value,
        crop_size=_CROP_SIZE.value,
        batch_size=_BATCH_SIZE.value,
        num_workers=_NUM_WORKERS.value,
        seed=_SEED.value,
    ).run()
    return 0


if __name__ == '__main__':
    flags.mark_flags_as_required(['checkpoint', 'output'])
    terminal.run(main)
