"""Loads many clips, some of them broken, to see whether memory is constant and the stream exact.

    python benchmarks/input_soak.py --clips=20000

Renders embedded videos, breaks 1 % of the files, and loads batches in worker processes. Prints the
memory of the workers and of this process from time to time, whether every broken file was reported,
and whether the stream stays the same when it is resumed in the middle, on one host and on several.
"""

import argparse
import hashlib
import itertools
import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from vivit_jax.annotations.check import check_annotations
from vivit_jax.annotations.readers.csv_files import read_csv_files
from vivit_jax.batches.loader import Batch, Workers, error_text, train_batches
from vivit_jax.batches.sources import VideoFiles
from vivit_jax.processes import Host
from vivit_jax.video.crops import RandomCrop
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.video.synthetic import SyntheticVideos, create_synthetic_videos

_PAGE_MB = os.sysconf('SC_PAGE_SIZE') / 1e6


def main():
    """Loads the clips and prints the findings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--clips', type=int, default=20_000)
    parser.add_argument('--videos', type=int, default=2_000)
    parser.add_argument('--batch_size', type=int, default=32)
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--hosts', type=int, default=4, help='of the resumed stream')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source, broken = _create_source(Path(folder), args.videos)
        digests = _soak(source, broken, args)
        start = len(digests) * 3 // 5
        _compare(source, digests, start, args, Host())
        _compare(source, digests, start + 1, args, Host(0, args.hosts))


def _create_source(folder: Path, num_videos: int) -> tuple[VideoFiles, set[str]]:
    """Videos of which every hundredth is cut off, empty, or no video at all."""
    what = SyntheticVideos(num_train=num_videos, num_val=0, num_test=0)
    rendered = create_synthetic_videos(what, str(folder))
    source = VideoFiles(
        check_annotations(
            read_csv_files({'train': str(rendered / 'train.csv')}, '', ('label',))
        ).splits['train']
    )
    broken = [Path(row.video_path) for row in source.videos[50::100]]
    for number, path in enumerate(broken):
        content = path.read_bytes()
        path.write_bytes((content[: len(content) // 3], b'', b'no video' * 100)[number % 3])
    return source, {str(path) for path in broken}


def _soak(source: VideoFiles, broken: set[str], args: argparse.Namespace) -> list[str]:
    """Loads all clips; returns a digest of every batch."""
    batches, digests, reported = _batches(source, args), [], set()
    num_batches = -(-args.clips // args.batch_size)
    memory, started = [], time.monotonic()
    for step, batch in enumerate(itertools.islice(batches, num_batches), 1):
        digests.append(_digest(batch))
        for index, error in zip(batch['bad_id'], batch['error'], strict=True):
            if index >= 0:
                assert error_text(error)
                reported.add(source.name(int(index)))
        if step % max(num_batches // 20, 1) == 0:
            rss = [_rss_mb(process.pid) for process in multiprocessing.active_children()]
            memory.append((sum(rss), _rss_mb(os.getpid())))
            clips = step * args.batch_size
            print(
                f'{clips:6d} clips: workers {memory[-1][0]:.1f} MB, trainer {memory[-1][1]:.1f} MB'
            )
    seconds = time.monotonic() - started
    batches.close()
    for name, values in zip(('workers', 'trainer'), zip(*memory, strict=True), strict=True):
        growth = values[-1] / values[len(values) // 4] - 1
        print(f'{name}: {100 * growth:+.1f} % from a quarter of the clips to the last')
    print(f'{len(digests) * args.batch_size / seconds:.0f} clips/s with {args.workers} workers')
    print(
        f'{len(reported)} of {len(broken)} broken files reported, {len(reported - broken)} others'
    )
    return digests


def _compare(
    source: VideoFiles, digests: list[str], start: int, args: argparse.Namespace, host: Host
):
    """Resumes the stream and compares the batches; each of several hosts loads its own rows."""
    count = min(20, len(digests) - start)
    hosts = [_batches(source, args, start, Host(i, host.count)) for i in range(host.count)]
    same = 0
    for step in range(start, start + count):
        parts = [next(batches) for batches in hosts]
        whole = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        same += _digest(whole) == digests[step]
    for batches in hosts:
        batches.close()
    print(
        f'resumed at batch {start} on {host.count} host(s): {same} of {count} batches are the same'
    )


def _batches(source: VideoFiles, args: argparse.Namespace, start: int = 0, host: Host = Host()):
    spec = Preprocessing(num_frames=8, frame_stride=2, short_side=56, crop_size=48)
    return train_batches(
        source,
        RandomCrop(spec, scale_jitter=(0.9, 1.33)),
        batch_size=args.batch_size,
        seed=0,
        start_step=start,
        workers=Workers(args.workers if host.count == 1 else 0),
        host=host,
    )


def _digest(batch: Batch) -> str:
    return hashlib.sha256(b''.join(batch[key].tobytes() for key in sorted(batch))).hexdigest()


def _rss_mb(pid: int) -> float:
    return int(Path(f'/proc/{pid}/statm').read_text().split()[1]) * _PAGE_MB


if __name__ == '__main__':
    main()
