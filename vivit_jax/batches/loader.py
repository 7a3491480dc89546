"""Batches from videos, decoded in worker processes.

The stream of batches is a pure function of (seed, step): it depends neither on the number of
workers nor of hosts, so a checkpoint's step says where to go on. Nothing here imports JAX.
"""

import contextlib
import dataclasses
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import grain
import numpy as np
from absl import flags
from grain.python import SharedMemoryArray

from vivit_jax.batches.balance import DrawBalanced
from vivit_jax.batches.reads import Reads, set_worker
from vivit_jax.batches.sources import VideoSource
from vivit_jax.batches.supervised import Supervised
from vivit_jax.errors import UserError
from vivit_jax.heads import PerHead, map_heads
from vivit_jax.processes import Host, end_with_parent
from vivit_jax.video.clips import read_random_clip, read_view
from vivit_jax.video.crops import RandomCrop
from vivit_jax.video.frame_reader import VideoError
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.video.recording import PIXELS, Recording, blank_clips

Batch = dict[str, PerHead[np.ndarray]]  # only labels differ between heads

_ERROR_BYTES = 512
_SHARED_MEMORY = Path('/dev/shm')  # where Linux shows it as files
_MAX_SUBSTITUTES = 8
# Python's tracker of shared memory frees what a killed process left, and need not tell the user.
_QUIET_TRACKER = 'ignore:resource_tracker'


@dataclasses.dataclass(frozen=True)
class Workers:
    """How batches are made ready in advance.

    Attributes:
        count: worker processes; 0 decodes in `threads` of this process.
        threads: decoding threads of each process.
        buffer: batches that each process holds ready.
        stall_sec: see `Supervised`.
    """

    count: int = 0
    threads: int = 1
    buffer: int = 2
    stall_sec: float = 60.0


def train_batches(
    source: VideoSource,
    crop: RandomCrop,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    repeats: int = 1,
    balance: float = 0.0,
    workers: Workers = Workers(),
    host: Host = Host(),
) -> Iterator[Batch]:
    """Endless shuffled batches, each epoch a new order.

    Args:
        source: videos with labels.
        crop: sampling, sizes and random crop of a clip.
        batch_size: clips per global batch; this host loads its part of them.
        seed: of order, clips and crops.
        start_step: batches to skip, without decoding them.
        repeats: clips that follow one another in a batch as different random clips of one video
            (repeated augmentation, arXiv 1901.09335). The video is opened once for all of them.
        balance: above 0, an epoch has as many clips, but draws them as `DrawBalanced` says.
        workers: see `Workers`.
        host: see `Host`.

    Returns:
        An iterator with a `close()`. The batches hold `rgb` uint8 [b t h w 3] and/or `depth` uint16
        [b t h w 1], `label` int32 [b] (of each head) or float32 [b classes] (see
        `VideoSource.label`), `video_id` int32 [b], and per clip the video that could not be used
        and was substituted: `bad_id` int32 [b], -1 if all was well, and `error` uint8 [b 512], text
        in UTF-8. In clips of units, t is the frames of all units.

    Raises:
        UserError: the batch does not divide among the hosts and into repeats; when a batch is asked
            for, many videos in a row cannot be used, or see `Supervised`.
    """
    check_repeats(batch_size, repeats, host.count)
    videos = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat(None)
    if balance:
        videos = videos.random_map(DrawBalanced(source.videos, balance))
    return _iterate(
        source,
        lambda reads: videos.random_map(_LoadClips(source, crop, repeats, reads)),
        batch_size // repeats,
        start_step,
        workers,
        host,
    )


def check_repeats(batch_size: int, repeats: int, num_hosts: int):
    """Raises a UserError if a batch does not divide into clips of the same videos."""
    if repeats > 1 and batch_size % (repeats * num_hosts):
        raise UserError(
            f'train.batch_size={batch_size} must divide by augment.repeats={repeats} clips of '
            f'each video and {num_hosts} process(es)'
        )


def view_batches(
    source: VideoSource,
    spec: Preprocessing,
    *,
    views: tuple[int, int],
    batch_size: int,
    workers: Workers = Workers(),
    host: Host = Host(),
) -> Iterator[Batch]:
    """Every video once, as `views` = (temporal, spatial) clips.

    Returns:
        An iterator with a `close()`. The batches hold, per temporal view of a video, the spatial
        views as `rgb` uint8 [b views t h w 3] and/or `depth` uint16 [b views t h w 1], `label` (of
        each head), `video_id` and `view` int32 [b], `mask` bool [b], false if the row only
        fills the last batch, and `error` as in `train_batches`; the pixels of a
        video with an error are zero.
    """
    num_items = len(source) * views[0]
    num_batches = -(-num_items // batch_size)
    items = grain.MapDataset.range(num_batches * batch_size)
    return _iterate(
        source,
        lambda reads: items.map(_LoadViews(source, spec, views, reads)),
        batch_size,
        0,
        workers,
        host,
    )


def error_text(error: np.ndarray) -> str:
    """The message in a row of a batch's `error`, empty where there is none."""
    return error.tobytes().rstrip(b'\0').decode(errors='ignore')


class _LoadClips(grain.transforms.RandomMap):
    """Index to random clips of a video; an unusable one is replaced by a random other one."""

    def __init__(self, source: VideoSource, crop: RandomCrop, repeats: int, reads: Reads):
        self._source = source
        self._reads = reads
        self._crop = crop
        self._repeats = repeats

    def random_map(self, index: int, rng: np.random.Generator) -> Batch:
        bad_id, error = -1, ''
        for _ in range(_MAX_SUBSTITUTES):
            try:
                pixels = self._load(index, rng)
                break
            except VideoError as problem:
                if bad_id < 0:
                    bad_id, error = index, str(problem)
                index = int(rng.integers(len(self._source)))
        else:
            raise UserError(f'{_MAX_SUBSTITUTES} unusable videos in a row; the first: {error}')
        item = {
            'label': self._source.label(index),
            'video_id': np.int32(index),
            'bad_id': np.int32(bad_id),
            'error': _error_bytes(error),
        }
        return pixels | _as_rows(item, self._repeats)

    def _load(self, index: int, rng: np.random.Generator) -> Batch:
        with _open(self._source, index, self._reads) as video:
            clips = [read_random_clip(video, self._crop, rng) for _ in range(self._repeats)]
        return _join(clips) if len(clips) > 1 else clips[0]


class _LoadViews(grain.transforms.Map):
    """Item `video · temporal views + view` to the spatial crops of the view."""

    def __init__(
        self, source: VideoSource, spec: Preprocessing, views: tuple[int, int], reads: Reads
    ):
        self._source = source
        self._reads = reads
        self._spec = spec
        self._views = views

    def map(self, item: int) -> Batch:
        temporal, spatial = self._views
        index, view = divmod(item, temporal)
        mask = index < len(self._source)
        pixels = blank_clips(self._source.kinds, (spatial, *self._spec.clip_shape))
        error = ''
        if mask:
            try:
                with _open(self._source, index, self._reads) as video:
                    pixels = read_view(
                        video, self._spec, view=view, num_views=temporal, num_crops=spatial
                    )
            except VideoError as problem:
                error = str(problem)
        item = {
            **pixels,
            'label': self._source.label(index if mask else 0),
            'video_id': np.int32(index if mask else -1),
            'view': np.int32(view),
            'mask': np.bool_(mask),
            'error': _error_bytes(error),
        }
        return _as_rows(item, 1)


@contextlib.contextmanager
def _open(source: VideoSource, index: int, reads: Reads) -> Iterator[Recording]:
    """Opens a video, and notes that it is being read."""
    if index in reads.given_up:
        raise VideoError(f'{source.name(index)}: reading it did not end, and was given up')
    with reads.reading(index), source.open(index) as video:
        yield video


def _as_rows(item: Batch, count: int) -> Batch:
    """An item that stands for `count` equal rows of a batch, without copying it."""
    return {
        key: map_heads(lambda x: np.broadcast_to(x, (count, *x.shape)), value)
        for key, value in item.items()
    }


def _join(items: Sequence[Batch]) -> Batch:
    return {
        key: map_heads(lambda *rows: np.concatenate(rows), *(item[key] for item in items))
        for key in items[0]
    }


def _join_for_trainer(items: Sequence[Batch]) -> Batch:
    """Like `_join`, with the pixels in shared memory that the trainer can read.

    The pixels are written through the file of the shared memory: 1.8 ms per clip of 32x224x224,
    while touching as many new pages takes 2.8 ms.
    """
    kinds = PIXELS.keys() & items[0].keys()
    pixels = {kind: _share([item[kind] for item in items]) for kind in kinds}
    rest = [{key: value for key, value in item.items() if key not in kinds} for item in items]
    return pixels | _join(rest)


def _share(clips: Sequence[np.ndarray]) -> SharedMemoryArray:
    shape = (sum(map(len, clips)), *clips[0].shape[1:])
    joined = SharedMemoryArray(shape, clips[0].dtype)
    with (_SHARED_MEMORY / joined.shm.name).open('r+b', buffering=0) as file:
        for rows in clips:
            file.write(rows)
    return joined


def _iterate(
    source: VideoSource,
    create: Callable[[Reads], grain.MapDataset],
    num_items: int,
    start: int,
    workers: Workers,
    host: Host,
) -> Supervised[Batch]:
    """Batches of the rows of `num_items` items in all, of the dataset that `create` gives."""
    if num_items % host.count:
        raise ValueError(f'batch size {num_items} does not divide among {host.count} hosts')

    def begin(place: int, reads: Reads) -> _Arrays:
        # Batching first gives every host whole runs of rows, so the global batch is always the
        # same.
        dataset = create(reads).batch(num_items // host.count, drop_remainder=True, batch_fn=list)
        return _Arrays(iter(_in_advance(dataset[host.index :: host.count][place:], workers)))

    return Supervised(
        begin,
        start,
        workers=(workers.count, workers.threads),
        stall_sec=workers.stall_sec,
        name=source.name,
    )


def _in_advance(dataset: grain.MapDataset, workers: Workers) -> grain.IterDataset:
    """Batches joined from lists of items, made ready in advance."""
    options = grain.ReadOptions(num_threads=workers.threads, prefetch_buffer_size=workers.buffer)
    # Join last: shared memory that a worker holds when it ends would leak.
    join = _join_for_trainer if workers.count and _SHARED_MEMORY.is_dir() else _join
    batches = dataset.to_iter_dataset(options).map(join)
    if not workers.count:
        return batches
    if _QUIET_TRACKER not in sys.warnoptions:
        sys.warnoptions.append(_QUIET_TRACKER)
    if not flags.FLAGS.is_parsed():  # Grain reads flags, also outside of an absl program
        flags.FLAGS.mark_as_parsed()
    multiprocessing = grain.MultiprocessingOptions(workers.count, workers.buffer)
    return batches.mp_prefetch(multiprocessing, worker_init_fn=_start_worker)


class _Arrays:
    """Batches of Grain as plain arrays.

    Grain's own arrays give their shared memory back when any slice of them is deleted.
    """

    def __init__(self, batches: grain.DatasetIterator):
        self._batches = batches

    def __next__(self) -> Batch:
        return {key: map_heads(_as_array, value) for key, value in next(self._batches).items()}

    def close(self):
        self._batches.close()


def _as_array(value: np.ndarray) -> np.ndarray:
    """A plain array. Shared memory loses its name: it is free when the array is, whatever happens.

    Grain unlinks the name in a thread, which Python cuts off at its end and then reports a leak.
    """
    if isinstance(value, SharedMemoryArray) and getattr(value, '_unlink_on_del', False):
        value._unlink_on_del = False
        value.shm.unlink()
    return np.asarray(value)


def _start_worker(index: int, count: int):
    """Leaves Ctrl-C to the trainer, and ends with it, however it ends."""
    set_worker(index)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def _error_bytes(error: str) -> np.ndarray:
    text = error.encode()[-_ERROR_BYTES:]  # the reason comes last
    return np.frombuffer(text.ljust(_ERROR_BYTES, b'\0'), np.uint8)
