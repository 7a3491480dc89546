"""A model's logits for every view of every video of a split."""

import logging
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh
from tqdm import tqdm

from vivit_jax.batches.loader import Workers, error_text, view_batches
from vivit_jax.batches.sources import VideoSource
from vivit_jax.evaluation.forward import jit_logits
from vivit_jax.evaluation.results import Results
from vivit_jax.heads import by_head, map_heads
from vivit_jax.layers.attention_kernels import log_choices
from vivit_jax.layers.tokens import ModelOutput
from vivit_jax.parallel.mesh import batch_sharding, check_batch_size, platform_of
from vivit_jax.parallel.to_device import find_host, prefetch, to_every_host
from vivit_jax.video.preprocessing import Preprocessing

_log = logging.getLogger(__name__)

_ROWS = ('video_id', 'view', 'mask', 'error')  # what a batch says of each temporal view


class Evaluator:
    """Runs a split through a model, on all devices and hosts; compiles once.

    Args:
        forward: see `create_forward`.
        mesh: the devices.
        spec: how clips are made.
        batch_size: temporal views per step, of all devices together.
        workers: decoding processes.
    """

    def __init__(
        self,
        forward: Callable[..., ModelOutput],
        mesh: Mesh,
        spec: Preprocessing,
        batch_size: int,
        workers: Workers,
    ):
        check_batch_size(batch_size, mesh, 'eval.batch_size')
        self._forward = jit_logits(forward, mesh)
        self._compiles = True
        self._mesh = mesh
        self._spec = spec
        self._batch_size = batch_size
        self._workers = workers

    def __call__(
        self,
        variables: dict,
        source: VideoSource,
        views: tuple[int, int],
        stop: Callable[[], bool] = lambda: False,
    ) -> Results | None:
        """Evaluates every video once, on `views` = (temporal, spatial) clips.

        Returns:
            The same results on every host, or None once `stop` says so.
        """
        if self._compiles:
            _log.info('Compiling the evaluation step …')
            self._compiles = False
        temporal, spatial = views
        platform = platform_of(self._mesh)
        batches = view_batches(
            source,
            self._spec,
            views=views,
            batch_size=self._batch_size,
            workers=self._workers,
            host=find_host(self._mesh),
        )
        labels = map_heads(
            lambda *labels: np.stack(labels), *(source.label(i) for i in range(len(source)))
        )
        logits = None
        failures: dict[int, str] = {}
        counted = np.zeros((len(source), temporal), int)
        num_batches = -(-len(source) * temporal // self._batch_size)
        bar = tqdm(total=num_batches, desc='evaluating', leave=False, disable=None)
        sharding = batch_sharding(self._mesh)
        feed = prefetch(batches, sharding, source.kinds)
        try:
            for batch, on_device in feed:
                if stop():
                    return None
                with jax.set_mesh(self._mesh), log_choices(platform, 'evaluation step'):
                    output = self._forward(variables, on_device)
                rows = to_every_host(batch, sharding, _ROWS)
                output = map_heads(np.asarray, output)
                if logits is None:
                    logits = map_heads(
                        lambda x: np.zeros((*counted.shape, *x.shape[1:]), np.float32), output
                    )
                for row in np.flatnonzero(rows['mask']):
                    video, view = int(rows['video_id'][row]), int(rows['view'][row])
                    counted[video, view] += 1
                    if error := error_text(rows['error'][row]):
                        failures[video] = error
                    else:
                        for head, found in by_head(output).items():
                            by_head(logits)[head][video, view] = found[row]
                bar.update()
        finally:
            bar.close()
            feed.close()
            batches.close()
        if not (counted == 1).all():
            raise RuntimeError('an evaluation must see every view of every video exactly once')
        logits = map_heads(lambda x: x.reshape(len(source), temporal * spatial, -1), logits)
        return Results(logits, labels, failures)
