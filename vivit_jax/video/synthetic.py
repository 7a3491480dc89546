"""Embedded data: rendered H.264 videos whose class only motion tells, with their depth.

A textured sprite over a textured background moves in one of eight ways. Position, size, angle,
colours, textures and speed are random and independent of the class at the middle of the video,
and every path is symmetric around it: the reverse of a `move_left` is a `move_right`, so no single
frame tells them apart.

Depth is what a sensor would measure in the scene: millimetres in 16 bits, in a lossless FFV1 video.
A sprite is as far away as its size in the frame says.
"""

import csv
import dataclasses
import logging
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from vivit_jax.cache_folder import user_cache_folder
from vivit_jax.errors import UserError

_log = logging.getLogger(__name__)

MOTIONS = (
    'approach',
    'move_down',
    'move_left',
    'move_right',
    'move_up',
    'recede',
    'rotate_clockwise',
    'rotate_counterclockwise',
)
SHAPES = ('square', 'bar', 'triangle', 'cross')

LABEL_COLUMNS = ('label', 'sprite')  # motion and shape

# (far, near) in mm, for `Preprocessing.depth_range`.
DEPTH_RANGE = (4500.0, 500.0)
_WALL_MM = 4000  # distance of the background
_SPRITE_MM = 1500  # distance of a sprite whose radius is a quarter of the frame's height

_VERSION = 1  # raise when the rendering changes: the cache folder carries it


@dataclasses.dataclass(frozen=True)
class SyntheticVideos:
    """What to render.

    Attributes:
        num_train, num_val, num_test: videos of each split.
        difficulty: 0: still background; 1: it moves too; 2: and a second sprite moves at random;
            3: and the camera shakes.
        num_frames: frames of a video, at 12 per second.
        height, width: in pixels, even.
        seed: of everything random.
    """

    num_train: int = 512
    num_val: int = 128
    num_test: int = 128
    difficulty: int = 0
    num_frames: int = 20
    height: int = 64
    width: int = 80
    seed: int = 0

    def __post_init__(self):
        if self.difficulty not in range(4):
            raise UserError(f'data.synthetic.difficulty={self.difficulty} must be 0, 1, 2 or 3')
        if self.height % 2 or self.width % 2:
            raise UserError(
                f'data.synthetic: {self.height} x {self.width} pixels: both must be even for H.264'
            )


def create_synthetic_videos(
    what: SyntheticVideos, cache_dir: str = '', has_depth: bool = False
) -> Path:
    """Renders the videos, unless the cache has them, and lists them in `<split>.csv`.

    Args:
        what: numbers, sizes and difficulty.
        cache_dir: by default `vivit_jax` in the user's cache folder.
        has_depth: whether the depth of each video is rendered, too.

    Returns:
        The folder of the CSV files (`video_path,label,sprite` and, with depth, `depth_path`).
    """
    name = '_'.join(str(value) for value in dataclasses.astuple(what))
    name += '_depth' if has_depth else ''
    folder = Path(cache_dir or user_cache_folder()) / f'synthetic_v{_VERSION}_{name}'
    if folder.is_dir():
        return folder
    _log.info('Rendering synthetic videos into %s', folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Made aside and renamed: a folder with the final name is complete.
    unfinished = Path(tempfile.mkdtemp(prefix='.rendering_', dir=folder.parent))
    try:
        sizes = {'train': what.num_train, 'val': what.num_val, 'test': what.num_test}
        for number, (split, size) in enumerate(sizes.items()):
            _create_split(unfinished, split, size, what, (what.seed, number), has_depth)
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was faster
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _create_split(
    folder: Path, split: str, size: int, what: SyntheticVideos, seed: tuple, has_depth: bool
):
    (folder / split).mkdir()
    with (folder / f'{split}.csv').open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(['video_path', *LABEL_COLUMNS, *(['depth_path'] if has_depth else [])])
        for index in range(size):
            rng = np.random.default_rng([*seed, index])
            motion = MOTIONS[index % len(MOTIONS)]
            shape = SHAPES[rng.integers(len(SHAPES))]
            path = f'{split}/{index:05d}.mp4'
            rgb, depth = render(motion, shape, what, rng)
            write_video(folder / path, rgb)
            row = [path, motion, shape]
            if has_depth:
                row.append(f'{split}/{index:05d}_depth.mkv')
                write_video(folder / row[-1], depth)
            writer.writerow(row)


def render(
    motion: str, shape: str, what: SyntheticVideos, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draws one video.

    Returns:
        RGB, uint8 [num_frames height width 3], and depth in mm, uint16 [num_frames height width].
    """
    time = np.linspace(-0.5, 0.5, what.num_frames)
    background = _texture(rng, size=8, brightness=(40, 110), contrast=25)
    scene = _Path(zoom=max(what.height, what.width) / 2 * rng.uniform(1.5, 2.5))
    if what.difficulty >= 1:
        scene.x, scene.y = rng.uniform(-0.4, 0.4, 2)[:, None] * scene.zoom * time
    sprites = [(shape, _sprite_path(motion, time, what, rng))]
    if what.difficulty >= 2:
        other = MOTIONS[rng.integers(len(MOTIONS))]
        distractor = _sprite_path(other, time, what, rng)
        distractor.zoom = distractor.zoom * 0.5
        sprites.insert(0, (SHAPES[rng.integers(len(SHAPES))], distractor))
    shake = np.zeros((2, 1))
    if what.difficulty >= 3:
        shake = rng.normal(0, 0.02 * what.height, (2, what.num_frames))

    rows, columns = np.mgrid[: what.height, : what.width].astype(np.float32)
    y = rows - (what.height - 1) / 2 + shake[0][:, None, None]
    x = columns - (what.width - 1) / 2 + shake[1][:, None, None]
    video = np.empty((what.num_frames, what.height, what.width, 3), np.float32)
    video[:] = _sample(background, *scene.place(x, y))
    depth = np.full(video.shape[:3], _WALL_MM, np.uint16)
    for kind, path in sprites:
        u, v = path.place(x, y)
        inside = np.broadcast_to(_inside(kind, u, v), video.shape[:3])
        texture = _texture(rng, size=4, brightness=(140, 230), contrast=50)
        u, v = (np.broadcast_to(a, inside.shape)[inside] for a in (u, v))
        video[inside] = _sample(texture, u, v)
        distance = _SPRITE_MM * 0.25 * what.height / np.reshape(path.zoom, (-1, 1, 1))
        depth[inside] = np.broadcast_to(distance, inside.shape)[inside].round()
    return video.round().clip(0, 255).astype(np.uint8), depth


def write_video(path: str | os.PathLike, video: np.ndarray, rate: int = 12):
    """Encodes a video at `rate` frames per second.

    Args:
        path: with the extension of a container.
        video: uint8 [t h w 3], which becomes H.264; or depth, uint16 [t h w], which becomes FFV1
            without loss.
        rate: frames per second.
    """
    import av  # here: the config's schema needs only `SyntheticVideos`

    if video.dtype == np.uint16:
        codec, options, stored, given = 'ffv1', {}, 'gray16le', 'gray16le'
    else:
        # Few key frames, as in files from the web.
        options = {'crf': '20', 'preset': 'veryfast', 'g': '48', 'threads': '1'}
        codec, stored, given = 'libx264', 'yuv420p', 'rgb24'
    with av.open(os.fspath(path), 'w') as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width = video.shape[1:3]
        stream.pix_fmt = stored
        for frame in video:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format=given)))
        container.mux(stream.encode())


@dataclasses.dataclass
class _Path:
    """Where a texture lies in each frame: pixels from the centre, radians, pixels per unit."""

    x: np.ndarray | float = 0.0
    y: np.ndarray | float = 0.0
    angle: np.ndarray | float = 0.0
    zoom: np.ndarray | float = 1.0

    def place(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pixel coordinates [t h w] to coordinates of the texture, [-1, 1] for a sprite."""
        left, top, angle, zoom = (
            np.asarray(value, np.float32).reshape(-1, 1, 1)
            for value in (self.x, self.y, self.angle, self.zoom)
        )
        x, y = (x - left) / zoom, (y - top) / zoom
        return x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)


def _sprite_path(motion: str, time: np.ndarray, what: SyntheticVideos, rng) -> _Path:
    radius = what.height * rng.uniform(0.18, 0.28)
    path = _Path(
        x=rng.uniform(-0.2, 0.2) * what.width,
        y=rng.uniform(-0.2, 0.2) * what.height,
        angle=rng.uniform(-np.pi, np.pi),
        zoom=radius,
    )
    speed = rng.uniform(0.75, 1.25)
    way = 0.5 * what.height * speed * time
    turn = 0.6 * np.pi * speed * time
    growth = 1.0 * speed * time
    if motion in ('move_left', 'move_right'):
        path.x = path.x + (way if motion == 'move_right' else -way)
    elif motion in ('move_up', 'move_down'):
        path.y = path.y + (way if motion == 'move_down' else -way)
    elif motion.startswith('rotate'):
        path.angle = path.angle + (turn if motion == 'rotate_clockwise' else -turn)
    else:
        path.zoom = radius * np.exp(growth if motion == 'approach' else -growth)
    return path


def _texture(
    rng: np.random.Generator, size: int, brightness: tuple[float, float], contrast: float
) -> np.ndarray:
    """Random colours around a random mean: float32 [size size 3] in 0 … 255."""
    mean = rng.uniform(*brightness, 3)
    return np.clip(rng.normal(mean, contrast, (size, size, 3)), 0, 255).astype(np.float32)


def _sample(texture: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Interpolates a texture, repeated without end, at coordinates where [-1, 1] is one tile."""
    size = len(texture)
    u, v = (np.asarray(a + 1) * (size / 2) for a in (u, v))
    left, top = np.floor(u).astype(int), np.floor(v).astype(int)
    right_part, lower_part = (u - left)[..., None], (v - top)[..., None]

    def at(row: np.ndarray, column: np.ndarray) -> np.ndarray:
        return texture[row % size, column % size]

    upper = at(top, left) * (1 - right_part) + at(top, left + 1) * right_part
    lower = at(top + 1, left) * (1 - right_part) + at(top + 1, left + 1) * right_part
    return upper * (1 - lower_part) + lower * lower_part


def _inside(shape: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    if shape == 'square':
        return (np.abs(u) < 0.9) & (np.abs(v) < 0.9)
    if shape == 'bar':
        return (np.abs(u) < 1.2) & (np.abs(v) < 0.45)
    if shape == 'triangle':
        return (v < 0.8) & (np.abs(u) < (v + 1) * 0.55)
    return (np.minimum(np.abs(u), np.abs(v)) < 0.4) & (np.maximum(np.abs(u), np.abs(v)) < 1)
