"""Runs a frozen model over videos."""

import collections
import dataclasses
import logging
from collections.abc import Sequence

import jax
import numpy as np
from tqdm import tqdm

from vivit_jax.annotations.dataset import LabeledVideo
from vivit_jax.batches.loader import Workers, error_text, view_batches
from vivit_jax.batches.sources import VideoFiles
from vivit_jax.errors import list_some
from vivit_jax.features.backbone import Backbone
from vivit_jax.features.cache import Cache
from vivit_jax.parallel.mesh import batch_sharding, check_batch_size, create_mesh, replicated
from vivit_jax.parallel.to_device import prefetch

_log = logging.getLogger(__name__)


def choose_batch_size(asked: int | None) -> int:
    """Clips to compute together: 1 on a CPU, 8 for each other device, unless a number is asked."""
    return asked or (1 if jax.default_backend() == 'cpu' else 8 * jax.device_count())


def extract(
    backbone: Backbone,
    videos: Sequence[LabeledVideo],
    cache: Cache,
    *,
    views: tuple[int, int] = (1, 1),
    has_tokens: bool = False,
    batch_size: int = 1,
    workers: Workers = Workers(),
) -> dict[str, str]:
    """Puts into a cache the features of the videos that it does not have yet.

    The arrays of a video are the outputs of `Backbone.forward`; temporal views are outermost.
    Tokens are kept in float16, and only if they are asked for.

    Args:
        backbone: the model.
        videos: to read.
        cache: of the features.
        views: (temporal, spatial) clips of each video.
        has_tokens: whether to keep the tokens.
        batch_size: temporal views that are computed together.
        workers: decoding processes.

    Returns:
        A message for each video, by its name, that cannot be used; they are logged too.

    Raises:
        UserError: the batch does not divide among the devices, or the cache cannot be written.
    """
    mesh = create_mesh()
    check_batch_size(batch_size, mesh, '--batch_size')
    missing = [video for video in videos if not cache.has(video)]
    _log.info('%d of %d videos have features already', len(videos) - len(missing), len(videos))
    if not missing:
        return {}
    spec = backbone.card.preprocessing
    source = VideoFiles(  # without labels, of which videos may have any number
        [dataclasses.replace(video, label=0) for video in missing],
        modality=backbone.model.spec.modality,
        is_stretched=spec.stretch_depth,
    )
    forward = jax.jit(backbone.forward(), out_shardings=replicated(mesh))
    batches = view_batches(source, spec, views=views, batch_size=batch_size, workers=workers)
    variables = jax.device_put(backbone.variables, replicated(mesh))
    failures, found = {}, collections.defaultdict(list)
    feed = prefetch(batches, batch_sharding(mesh), source.kinds)
    try:
        with tqdm(total=len(missing), unit='video', disable=None) as bar:
            for batch, on_device in feed:
                with jax.set_mesh(mesh):
                    output = forward(variables, on_device)
                if not has_tokens:
                    output.pop('tokens', None)
                output = {name: np.asarray(x) for name, x in output.items()}
                for row in np.flatnonzero(batch['mask']):
                    number = int(batch['video_id'][row])
                    if error := error_text(batch['error'][row]):
                        failures[source.name(number)] = error
                    found[number].append({name: x[row] for name, x in output.items()})
                    if len(found[number]) == views[0]:
                        rows = found.pop(number)
                        if source.name(number) not in failures:
                            cache.write(missing[number], _join(rows))
                        bar.update()
    finally:
        feed.close()
        batches.close()
    if failures:
        _log.warning(
            '%d videos could not be used: %s',
            len(failures),
            list_some([f'{name}: {text}' for name, text in failures.items()]),
        )
    return failures


def _join(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    arrays = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    return {
        name: x.astype(np.float16 if name == 'tokens' else np.float32) for name, x in arrays.items()
    }
