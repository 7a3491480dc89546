"""Measures how fast clips are loaded, beside the bare decoder and other loaders.

    python benchmarks/input_speed.py [VIDEO ...] [--workers=2]

All sides seek to the same key frames and decode the same 32 frames at stride 2. The bare decoder
(PyAV, one thread) turns them into RGB at native size; the others also resize to short side 256 and
cut 224x224. Measurements alternate; medians and the range of the ratios are printed:

    one core     each side in this process: vivit_jax from a file and from the bytes of a record,
                 and decord
    N workers    processes: bare decoders; vivit_jax's batches, from files and from records; and
                 torch's DataLoader with PyAV

decord and torch take part if they are installed. If no video is given, a 10 s, 340x256 H.264 video
of 30 frames per second is rendered.
"""

import argparse
import contextlib
import functools
import importlib.util
import itertools
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter

import vivit_jax  # noqa: F401  (keeps JAX out of the workers)
from vivit_jax.annotations.dataset import LabeledVideo
from vivit_jax.batches.loader import Batch, Workers, train_batches
from vivit_jax.batches.sources import VideoFiles
from vivit_jax.video.crops import RandomCrop
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.video.sampling import sample_train_frames
from vivit_jax.video.synthetic import SyntheticVideos, render, write_video
from vivit_jax.video.video_reader import VideoReader

SPEC = Preprocessing()
_BATCH_SIZE = 4
_WARM_UP_CLIPS = 40  # more than the workers hold ready


def main():
    """Prints the clips/s of all sides, and the ratios to the first side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('videos', nargs='*')
    parser.add_argument('--clips', type=int, default=20, help='clips per measurement')
    parser.add_argument('--rounds', type=int, default=9, help='measurements of each side')
    parser.add_argument('--workers', type=int, default=2, help='0 leaves this part out')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for video in args.videos or [str(_render(Path(folder) / 'rendered.mp4'))]:
            with VideoReader(video) as reader:
                length = len(reader)
                size = reader.read([0]).shape[1:3]
            print(f'{Path(video).name}: {length} frames of {size[1]}x{size[0]}')
            rng = np.random.default_rng(0)
            clips = [sample_train_frames(length, SPEC, rng) for _ in range(args.clips)]
            _compare('one core', _one_core(video, clips), args.rounds)
            if args.workers:
                sides = _with_workers(video, clips, args.workers)
                _compare(f'{args.workers} workers', sides, args.rounds)


def _compare(title: str, sides: dict[str, Callable[[], float]], rounds: int):
    rates = {name: [] for name in sides}
    for measure in sides.values():
        measure()  # fills caches
    for _ in range(rounds):
        for name, measure in sides.items():
            rates[name].append(measure())
    first = next(iter(rates.values()))
    for name, values in rates.items():
        ratios = [a / b for a, b in zip(values, first, strict=True)]
        print(
            f'  {title:10} {name:24} {statistics.median(values):6.1f} clips/s, '
            f'{statistics.median(ratios):.2f} ({min(ratios):.2f} - {max(ratios):.2f})'
        )


def _one_core(video: str, clips: Sequence[np.ndarray]) -> dict[str, Callable[[], float]]:
    content = Path(video).read_bytes()
    sides = {
        'bare decoder': functools.partial(_decode_bare, video),
        'vivit_jax': functools.partial(_load, video),
        'vivit_jax, from a record': functools.partial(_load, content),
    }
    if importlib.util.find_spec('decord'):
        sides['decord'] = functools.partial(_load_decord, video)
    return {name: functools.partial(_rate, load, clips) for name, load in sides.items()}


def _rate(load: Callable[[np.ndarray], np.ndarray], clips: Sequence[np.ndarray]) -> float:
    start = time.perf_counter()
    for frames in clips:
        load(frames)
    return len(clips) / (time.perf_counter() - start)


def _with_workers(
    video: str, clips: Sequence[np.ndarray], count: int
) -> dict[str, Callable[[], float]]:
    sides = {
        'bare decoders': lambda: _decoders(video, clips, count),
        'vivit_jax': lambda: _batches(VideoFiles([LabeledVideo(video, 0)] * 64), count),
    }
    if importlib.util.find_spec('torch'):
        sides["torch's DataLoader"] = lambda: _torch_batches(video, count)
    return {
        name: functools.partial(_stream_rate, start, len(clips)) for name, start in sides.items()
    }


def _stream_rate(
    start: Callable[[], AbstractContextManager[Iterator[int]]], num_clips: int
) -> float:
    """Clips/s of a stream of clip counts, not counting clips that workers had ready in advance."""
    with start() as stream:
        for skip in (_WARM_UP_CLIPS, num_clips):
            began, done = time.perf_counter(), 0
            while done < skip:
                done += next(stream)
        return done / (time.perf_counter() - began)


@contextlib.contextmanager
def _decoders(video: str, clips: Sequence[np.ndarray], count: int) -> Iterator[Iterator[int]]:
    with multiprocessing.get_context('spawn').Pool(count) as pool:
        yield pool.imap_unordered(
            functools.partial(_decode_and_drop, video), itertools.chain(*[clips] * 5)
        )


@contextlib.contextmanager
def _batches(source: VideoFiles, count: int) -> Iterator[Iterator[int]]:
    batches = train_batches(
        source, RandomCrop(SPEC), batch_size=_BATCH_SIZE, seed=0, workers=Workers(count)
    )
    yield map(_size, batches)
    batches.close()


@contextlib.contextmanager
def _torch_batches(video: str, count: int) -> Iterator[Iterator[int]]:
    import torch

    loader = torch.utils.data.DataLoader(
        _TorchVideos(video),
        batch_size=_BATCH_SIZE,
        num_workers=count,
        multiprocessing_context='spawn',
    )
    yield map(len, loader)


def _size(batch: Batch) -> int:
    return len(batch['rgb'])


def _render(path: Path) -> Path:
    what = SyntheticVideos(num_frames=300, height=256, width=340, difficulty=3)
    rng = np.random.default_rng(0)
    write_video(path, render('move_left', 'bar', what, rng), rate=30)[0]
    return path


def _decode_bare(video: str, frames: np.ndarray) -> np.ndarray:
    with av.open(video) as container:
        stream = container.streams.video[0]
        stream.thread_type = 'NONE'
        frame_sec = 1 / stream.average_rate
        first = int(frames[0] * frame_sec / stream.time_base)
        container.seek(first, stream=stream, backward=True)
        wanted, clip = set(frames.tolist()), []
        to_rgb = VideoReformatter()  # one for all frames: much faster than frame.to_ndarray
        for frame in container.decode(stream):
            index = round(frame.pts * stream.time_base / frame_sec)
            if index in wanted:
                clip.append(to_rgb.reformat(frame, format='rgb24', threads=1).to_ndarray())
            if index >= frames[-1]:
                break
    return np.stack(clip)


def _decode_and_drop(video: str, frames: np.ndarray) -> int:
    _decode_bare(video, frames)
    return 1


def _load(video: str | bytes, frames: np.ndarray) -> np.ndarray:
    crop, rng = RandomCrop(SPEC), np.random.default_rng(0)
    with VideoReader(video) as reader:
        return reader.read(frames, lambda h, w: crop(h, w, rng))


def _load_decord(video: str, frames: np.ndarray) -> np.ndarray:
    import decord

    native = decord.VideoReader(video, num_threads=1)
    height, width = native[0].shape[:2]
    scale = SPEC.short_side / min(height, width)
    if scale != 1:
        native = decord.VideoReader(
            video, num_threads=1, width=round(width * scale), height=round(height * scale)
        )
    clip = native.get_batch(frames).asnumpy()
    return clip[:, : SPEC.crop_size, : SPEC.crop_size].copy()


class _TorchVideos:
    """The code that a user of PyAV and torch would write: seek, decode, to RGB, resize, cut."""

    def __init__(self, video: str):
        self._video = video
        with VideoReader(video) as reader:
            self._length = len(reader)

    def __len__(self) -> int:
        return 4096

    def __getitem__(self, index: int):
        import torch

        torch.set_num_threads(1)
        rng = np.random.default_rng(index)
        frames = sample_train_frames(self._length, SPEC, rng)
        clip = torch.from_numpy(_decode_bare(self._video, frames)).permute(0, 3, 1, 2)
        scale = SPEC.short_side / min(clip.shape[2:])
        if scale != 1:
            size = [round(x * scale) for x in clip.shape[2:]]
            clip = torch.nn.functional.interpolate(clip, size, mode='bilinear', antialias=True)
        top, left = (int(rng.integers(x - SPEC.crop_size + 1)) for x in clip.shape[2:])
        return clip[:, :, top : top + SPEC.crop_size, left : left + SPEC.crop_size].contiguous()


if __name__ == '__main__':
    main()
