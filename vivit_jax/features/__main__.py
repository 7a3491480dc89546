"""Computes features of videos with a frozen model, and keeps them on disk.

    python -m vivit_jax.features --checkpoint=dinov2_small --data=videos --output=features
    python -m vivit_jax.features --checkpoint=runs/demo --data=a.csv --output=features --views=4x3

The checkpoint is a run folder, an image ViT or whatever else `vivit_jax.convert` reads. The output
gets a file for each video and a list of them, `index.csv`. The same command goes on where it was
interrupted, and reads no video twice.
"""

if __name__ == '__main__':  # before the slow imports
    from vivit_jax.signals import end_on_ctrl_c

    end_on_ctrl_c()

import logging
from pathlib import Path

from absl import flags

from vivit_jax import terminal
from vivit_jax.errors import UserError

_log = logging.getLogger('vivit_jax.features')  # this module's own name is __main__

# Decoding workers import this module anew, so that `main` imports the modules that need JAX.

_CHECKPOINT = flags.DEFINE_string(
    'checkpoint', None, 'Run folder, or whatever vivit_jax.convert reads, such as an image ViT.'
)
_DATA = flags.DEFINE_string(
    'data', None, 'A .csv with the header "video_path", or a folder of videos.'
)
_OUTPUT = flags.DEFINE_string('output', None, 'A folder for the features; may hold some already.')
_VIEWS = flags.DEFINE_string('views', '1x1', 'Temporal x spatial clips of each video.')
_TOKENS = flags.DEFINE_bool('tokens', False, 'Keep the tokens of a ViViT or image ViT too.')
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


def main(arguments: list[str]) -> int:
    """Computes the features that are missing; returns 1 if a video could not be used."""
    if arguments:
        raise UserError(f'unexpected {arguments}: name the videos with --data')
    from vivit_jax.batches.loader import Workers
    from vivit_jax.evaluation.views import parse_views
    from vivit_jax.features.backbone import read_backbone
    from vivit_jax.features.cache import Cache
    from vivit_jax.features.extract import choose_batch_size, extract
    from vivit_jax.features.listing import list_videos
    from vivit_jax.parallel.compilation_cache import use_compilation_cache

    views = parse_views(_VIEWS.value, '--views')
    videos = list_videos(_DATA.value)
    use_compilation_cache()
    backbone = read_backbone(
        _CHECKPOINT.value, num_frames=_FRAMES.value, crop_size=_CROP_SIZE.value
    )
    output = Path(_OUTPUT.value)
    cache = Cache.of(output, backbone.key, views, _TOKENS.value)
    failures = extract(
        backbone,
        videos,
        cache,
        views=views,
        has_tokens=_TOKENS.value,
        batch_size=choose_batch_size(_BATCH_SIZE.value),
        workers=Workers(_NUM_WORKERS.value),
    )
    index = output / 'index.csv'
    cache.write_index(index, videos)
    _log.info('%d videos are listed in %s', len(videos) - len(failures), index)
    return int(bool(failures))


if __name__ == '__main__':
    flags.mark_flags_as_required(['checkpoint', 'data', 'output'])
    terminal.run(main)
