"""How many clips a second this host feeds, and how many the model takes."""

import dataclasses
import logging
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from vivit_jax.batches.load_dataset import load_dataset
from vivit_jax.batches.loader import Workers, train_batches
from vivit_jax.batches.sources import VideoFiles, VideoSource
from vivit_jax.heads import map_heads
from vivit_jax.parallel.mesh import batch_sharding
from vivit_jax.prepare.encode import Encoding
from vivit_jax.prepare.pack import pack
from vivit_jax.prepare.plan import make_plan
from vivit_jax.train.experiment import Experiment
from vivit_jax.video.recording import blank_clips

_log = logging.getLogger(__name__)

_BATCH_SIZE = 4  # of the decoding: small, so that a rate needs little time
_PACKED_VIDEOS = 100  # to compare records with files
_STEP_SEC = 4.0  # what a measured training step may take, about


def bench(config: ConfigDict, seconds: float = 10.0):
    """Prints how fast videos are decoded and how fast the model is trained, in clips a second.

    Decoding is measured with one worker and with all of `data.num_workers`, from the videos as they
    lie and from some of them as records; training on all devices with `train.batch_size` clips, or
    as many as a few seconds a step allow.

    Args:
        config: see `vivit_jax.config.schema`.
        seconds: of each measurement.

    Raises:
        UserError: there is nothing to decode, or the config does not fit.
    """
    count = config.data.num_workers or os.cpu_count()
    experiment = Experiment(config)
    with tempfile.TemporaryDirectory() as folder:
        is_files = isinstance(experiment.train_source, VideoFiles)
        is_packed = is_files and experiment.train_source.modality != 'rgbd'
        sources = {'files' if is_files else config.data.source: experiment.train_source}
        if is_packed:
            sources['records'] = _pack(experiment, Path(folder))
        _log.info('Decoding, %.0f s for each of %d rates', seconds, 2 * len(sources))
        for name, source in sources.items():
            per_core, rate = (
                _decoding_rate(experiment, source, workers, seconds) for workers in (1, count)
            )
            print(f'{name}: {per_core:.1f} clips/s with one worker, {rate:.1f} with {count}')
    _log.info('Compiling and training, half a minute and more')
    needed, batch_size = _training_rate(experiment, seconds)
    devices = f'{jax.device_count()} {jax.devices()[0].device_kind}'
    print(f'training: {needed:.2f} clips/s on {devices}, {batch_size} clips a step')
    print(
        f'{math.ceil(needed / per_core)} worker(s) feed it from {name}; '
        f'{count} decode {rate / needed:.3g} times what it needs'
    )


def _pack(experiment: Experiment, folder: Path) -> VideoSource:
    """Records of some of the training videos, as they are."""
    videos = experiment.train_source.videos
    some = VideoFiles(
        videos[:: max(1, len(videos) // _PACKED_VIDEOS)],
        modality=experiment.train_source.modality,
        limits=experiment.train_source.limits,
    )
    plan = make_plan(
        dataclasses.replace(experiment.dataset, splits={'train': some}),
        folder,
        name='bench',
        encoding=Encoding(None, None, 18),
        label_columns=experiment.config.data.label_columns,
    )
    pack(plan, max_bad_fraction=1.0, num_workers=os.cpu_count())
    data = experiment.config.data.copy_and_resolve_references()
    data.update(source='records', root=str(plan.folder), val_fraction=None)
    records = load_dataset(
        data,
        label_names=experiment.dataset.label_names,
        splits=('train',),
        modality=experiment.train_source.modality,
    )
    return records.splits['train']


def _decoding_rate(
    experiment: Experiment, source: VideoSource, num_workers: int, seconds: float
) -> float:
    """Clips/s of random clips, without the batches that workers have made ready in advance."""
    config, repeats = experiment.config, experiment.programs.policy.repeats
    batches = train_batches(
        source,
        experiment.crop,
        batch_size=math.lcm(_BATCH_SIZE, repeats),
        seed=config.seed,
        repeats=repeats,
        workers=Workers(num_workers, config.data.worker_threads, buffer=1),
    )
    try:
        for _ in range(3 * num_workers):
            next(batches)
        began, clips = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            clips += len(next(batches)['video_id'])
        return clips / (time.perf_counter() - began)
    finally:
        batches.close()


def _training_rate(experiment: Experiment, seconds: float) -> tuple[float, int]:
    """Clips/s, and clips of each step: one per device at first, then what time allows."""
    whole, parts = experiment.config.train.batch_size, jax.device_count()
    with jax.set_mesh(experiment.mesh):
        programs = experiment.programs
        create = jax.jit(programs.create_state, out_shardings=programs.state_sharding)
        step = programs.train_step()
        step_sec = _step_sec(experiment, create, step, parts, 0.0)
        batch_size = min(whole, max(1, int(_STEP_SEC / step_sec)) * parts)
        if batch_size > parts:
            step_sec = _step_sec(experiment, create, step, batch_size, seconds)
    return batch_size / step_sec, batch_size


def _step_sec(
    experiment: Experiment, create: Callable, step: Callable, batch_size: int, seconds: float
) -> float:
    """Median time of a step; measures for `seconds`, and at least one step."""
    state = create()
    batch = {
        **blank_clips(
            experiment.train_source.kinds, (batch_size, *experiment.programs.spec.clip_shape)
        ),
        'label': map_heads(
            lambda x: np.zeros(x.shape, x.dtype),
            experiment.programs.abstract_batch(batch_size)['label'],
        ),
    }
    batch = jax.device_put(batch, batch_sharding(experiment.mesh))
    state, metrics = step(state, batch)  # compiles
    times = []
    while not times or sum(times) < seconds:
        jax.block_until_ready(metrics)
        start = time.perf_counter()
        state, metrics = step(state, batch)
        jax.block_until_ready(metrics)
        times.append(time.perf_counter() - start)
    return statistics.median(times)
