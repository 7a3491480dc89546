"""How fast clips are decoded, against the bare decoder in the same run.

    python benchmarks/input_speed.py [VIDEO]

Both sides seek to the same key frame and decode the same 32 frames at stride 2; the bare decoder
turns them into RGB at native size, the input pipeline also resizes to short side 256 and cuts 224.
Without a file a 10 s, 340x256 H.264 video of 30 frames per second is rendered.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import av
import numpy as np

from vivit_jax.data.decode import VideoReader
from vivit_jax.data.preprocessing import Preprocessing
from vivit_jax.data.sampling import sample_train_frames
from vivit_jax.data.synthetic import SyntheticVideos, render, write_video
from vivit_jax.data.transforms import RandomCrop


def main():
    """Prints clips/s of both sides, one core each, and their ratio, pair by pair."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('video', nargs='?')
    parser.add_argument('--clips', type=int, default=20, help='clips per measurement')
    parser.add_argument('--pairs', type=int, default=9, help='measurements of each side')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        video = args.video or _render(Path(folder) / 'video.mp4')
        spec = Preprocessing()
        with VideoReader(video) as reader:
            length = len(reader)
        rng = np.random.default_rng(0)
        clips = [sample_train_frames(length, spec, rng) for _ in range(args.clips)]
        bare, ours = [], []
        for _ in range(args.pairs):
            bare.append(_rate(clips, lambda frames: _decode_bare(video, frames)))
            ours.append(_rate(clips, lambda frames: _load(video, frames, spec, rng)))
    ratios = [a / b for a, b in zip(ours, bare, strict=True)]
    print(f'bare decoder  {statistics.median(bare):6.1f} clips/s')
    print(f'vivit_jax     {statistics.median(ours):6.1f} clips/s')
    print(f'ratio         {statistics.median(ratios):6.2f} ({min(ratios):.2f} - {max(ratios):.2f})')


def _render(path: Path) -> Path:
    what = SyntheticVideos(num_frames=300, height=256, width=340, difficulty=3)
    rng = np.random.default_rng(0)
    write_video(path, render('move_left', 'bar', what, rng), rate=30)
    return path


def _rate(clips: list[np.ndarray], load) -> float:
    start = time.perf_counter()
    for frames in clips:
        load(frames)
    return len(clips) / (time.perf_counter() - start)


def _decode_bare(video, frames: np.ndarray) -> np.ndarray:
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        stream.thread_type = 'NONE'
        frame_sec = 1 / stream.average_rate
        first = int(frames[0] * frame_sec / stream.time_base)
        container.seek(first, stream=stream, backward=True)
        wanted, clip = set(frames.tolist()), []
        for frame in container.decode(stream):
            index = round(frame.pts * stream.time_base / frame_sec)
            if index in wanted:
                clip.append(frame.to_ndarray(format='rgb24'))
            if index >= frames[-1]:
                break
    return np.stack(clip)


def _load(video, frames: np.ndarray, spec: Preprocessing, rng) -> np.ndarray:
    crop = RandomCrop(spec)
    with VideoReader(video) as reader:
        return reader.read(frames, lambda h, w: crop(h, w, rng))


if __name__ == '__main__':
    main()
