"""Videos, images of frame folders and files of weights that were changed at random."""

import functools
import os
import random
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import flax.serialization
import jax
import numpy as np
import torch

from vivit_jax.errors import UserError
from vivit_jax.model_card import ModelCard
from vivit_jax.models.registry import create_model
from vivit_jax.prepare.workers import Died, run_tasks
from vivit_jax.video.open import open_video
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.weights.huggingface import write_huggingface
from vivit_jax.weights.load import load_checkpoint
from vivit_jax.weights.orbax import write_checkpoint
from vivit_jax.weights.torch_export import export_torch
from vivit_jax.weights.vivit_jax_npz import write_npz

_LIMIT_SEC = 10  # a case that takes longer counts as a hang
_LIMIT_BYTES = 1 << 30
_CASES_PER_TASK = 25
# Suffix, codec, pixel format.
_VIDEOS = {
    'mp4 h264': ('mp4', 'libx264', 'yuv420p'),
    'mp4 hevc': ('mp4', 'libx265', 'yuv420p'),
    'mov mpeg4': ('mov', 'mpeg4', 'yuv420p'),
    'mkv ffv1 of depth': ('mkv', 'ffv1', 'gray16le'),
    'webm vp8': ('webm', 'libvpx', 'yuv420p'),
    'webm vp9': ('webm', 'libvpx-vp9', 'yuv420p'),
    'avi mjpeg': ('avi', 'mjpeg', 'yuvj420p'),
    'avi mpeg4': ('avi', 'mpeg4', 'yuv420p'),
    'ts h264': ('ts', 'libx264', 'yuv420p'),
    'flv': ('flv', 'flv1', 'yuv420p'),
    'wmv': ('asf', 'wmv2', 'yuv420p'),
    'mpg mpeg2': ('mpg', 'mpeg2video', 'yuv420p'),
    'gif': ('gif', 'gif', 'rgb8'),
    '3gp': ('3gp', 'mpeg4', 'yuv420p'),
}
_IMAGES = {'jpg': 'mjpeg', 'png': 'png'}
_WRITERS = {
    'ours.npz': write_npz,
    'ours.safetensors': export_torch,
    'folder of Hugging Face': write_huggingface,
    'checkpoint': write_checkpoint,
}
_WEIGHTS = dict.fromkeys([*_WRITERS, 'checkpoint.msgpack', 'image_vit.pth'])


def _run(kinds: dict, make: Callable, try_one: Callable, folder: Path, count: int, first: int):
    """Yields (kind, outcome, seconds) of the cases from `first` on, the kinds in turn."""
    if count <= 0:
        return
    originals = {kind: make(folder, kind) for kind in kinds}
    cases = [(i, [*kinds][i % len(kinds)]) for i in range(first, first + count)]
    tasks = [cases[i : i + _CASES_PER_TASK] for i in range(0, count, _CASES_PER_TASK)]
    work = functools.partial(_try_all, try_one, originals)
    while tasks:
        done, later = dict.fromkeys(range(len(tasks)), 0), []
        for place, value in run_tasks(work, tasks, max(1, (os.cpu_count() or 2) - 1)):
            case, kind = tasks[place][done[place]]
            if isinstance(value, Died):
                hangs = 'SIGALRM' in value
                yield kind, f'case {case}: hangs' if hangs else f'case {case}: {value}', _LIMIT_SEC
                later.append(tasks[place][done[place] + 1 :])
            else:
                done[place] += 1
                yield kind, *value
        tasks = [task for task in later if task]


def _try_all(try_one: Callable, originals: dict, cases: list) -> Iterator[tuple[str, float]]:
    for case, kind in cases:
        rng = random.Random(case)
        signal.alarm(_LIMIT_SEC)
        began = time.monotonic()
        try:
            outcome = try_one(originals[kind], rng)
        except UserError as error:
            outcome = 'refused' if '\n' not in str(error) else f'refused in several lines: {error}'
        except Exception as error:
            outcome = f'case {case}: {type(error).__name__}: {error}'
        signal.alarm(0)
        peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if peak > _LIMIT_BYTES:
            outcome = f'case {case}: {peak / 1e9:.1f} GB of memory'
        yield outcome, time.monotonic() - began


def _change(content: bytes, rng: random.Random) -> bytes:
    """A file with flipped bits, a hole, a part that is missing, moved or there twice."""
    size, data = len(content), bytearray(content)
    start = rng.choice([0, rng.randrange(size)])  # headers are a good place
    length = min(size - start, 1 << rng.randrange(12))
    kind = rng.randrange(6)
    if kind <= 1:
        for _ in range(1 << rng.randrange(7)):
            place = rng.randrange(min(size, 512) if kind else size)
            data[place] ^= 1 << rng.randrange(8)
    elif kind == 2:
        data[start : start + length] = bytes(length)
    elif kind == 3:
        del data[start : start + length]
    elif kind == 4:
        place = rng.randrange(size)
        data[place:place] = data[start : start + length]
    else:
        del data[rng.randrange(size) :]
    return bytes(data)


def _encode(path: Path, codec: str, pixels: str, count: int, **keywords):
    rng = np.random.default_rng(0)
    with av.open(str(path), 'w', **keywords) as file:
        stream = file.add_stream(codec, 25)
        stream.width, stream.height, stream.pix_fmt = 176, 144, pixels
        base = rng.integers(0, 255, (36, 44, 3), np.uint8).repeat(4, 0).repeat(4, 1)
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(np.roll(base, 3 * i, 1), 'rgb24')
            file.mux(stream.encode(frame.reformat(format=pixels)))
        file.mux(stream.encode())


def _make_video(folder: Path, kind: str) -> str:
    suffix, codec, pixels = _VIDEOS[kind]
    path = folder / f'{kind.replace(" ", "_")}.{suffix}'
    if not path.exists():
        _encode(path, codec, pixels, 24)
    return str(path)


def _try_video(path: str, rng: random.Random) -> str:
    content = _change(Path(path).read_bytes(), rng)
    with tempfile.NamedTemporaryFile(suffix=Path(path).suffix) as file:
        file.write(content)
        file.flush()
        source = content if rng.randrange(2) else file.name
        with open_video(source) as video:
            frames = sorted(rng.randrange(len(video)) for _ in range(8))
            video.read(frames)
    return 'read'


def _make_images(folder: Path, kind: str) -> str:
    images = folder / kind
    if not images.exists():
        images.mkdir()
        for i in range(4):
            _encode(
                images / f'{i}.{kind}',
                _IMAGES[kind],
                'yuvj420p' if kind == 'jpg' else 'rgb24',
                1,
                format='image2',
                options={'update': '1'},
            )
    return str(images)


def _try_images(folder: str, rng: random.Random) -> str:
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        changed = rng.choice(sorted(Path(copy).iterdir()))
        changed.write_bytes(_change(changed.read_bytes(), rng))
        with open_video(copy) as video:
            video.read(range(4))
    return 'read'


def _make_weights(folder: Path, kind: str) -> str:
    """A small model in one of the formats."""
    path = folder / kind.replace(' ', '_')
    if path.exists():
        return str(path)
    if kind == 'image_vit.pth':
        torch.save({name: torch.tensor(value) for name, value in _image_vit().items()}, path)
        return str(path)
    keywords = {'num_classes': 4, 'tubelet_size': (2, 56, 56), 'position': 'learned'}
    sizes = {'hidden_size': 16, 'num_layers': 1, 'num_heads': 2, 'mlp_dim': 16, 'pool': 'cls'}
    spec = Preprocessing(num_frames=4)
    model = create_model('vivit_joint', **keywords, **sizes)
    params = jax.jit(model.init)(jax.random.key(0), np.zeros((1, *spec.clip_shape, 3), 'f'))[
        'params'
    ]
    card = ModelCard({'name': 'vivit_joint', **keywords, **sizes}, spec, tuple('abcd'))
    if kind == 'checkpoint.msgpack':
        state = {'optimizer': {'target': params, 'state': {}}, 'global_step': 3}
        path.write_bytes(flax.serialization.to_bytes(state))
    else:
        _WRITERS[kind](card, params, path)
    return str(path)


def _image_vit() -> dict[str, np.ndarray]:
    """A ViT for images with the names of timm."""
    d, m = 64, 32
    shapes = {
        'cls_token': (1, 1, d),
        'pos_embed': (1, 17, d),
        'patch_embed.proj.weight': (d, 3, 8, 8),
        'patch_embed.proj.bias': (d,),
        'blocks.0.attn.qkv.weight': (3 * d, d),
        'blocks.0.attn.qkv.bias': (3 * d,),
        'blocks.0.attn.proj.weight': (d, d),
        'blocks.0.attn.proj.bias': (d,),
        'blocks.0.mlp.fc1.weight': (m, d),
        'blocks.0.mlp.fc1.bias': (m,),
        'blocks.0.mlp.fc2.weight': (d, m),
        'blocks.0.mlp.fc2.bias': (d,),
        'head.weight': (4, d),
        'head.bias': (4,),
    }
    norms = ('blocks.0.norm1', 'blocks.0.norm2', 'norm')
    shapes |= {f'{norm}.{name}': (d,) for norm in norms for name in ('weight', 'bias')}
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def _try_weights(path: str, rng: random.Random) -> str:
    with tempfile.TemporaryDirectory() as copy:
        copied = Path(copy, Path(path).name)
        (shutil.copytree if Path(path).is_dir() else shutil.copy)(path, copied)
        files = (
            [copied]
            if copied.is_file()
            else sorted(
                file for file in copied.rglob('*') if file.is_file() and file.stat().st_size
            )
        )
        changed = rng.choice(files)
        changed.write_bytes(_change(changed.read_bytes(), rng))
        found, original = load_checkpoint(copied), load_checkpoint(path)
    same = jax.tree.map(np.array_equal, found[1], original[1])
    return 'read, the same weights' if all(jax.tree.leaves(same)) else 'read, other numbers'


PARTS = {
    'videos': functools.partial(_run, _VIDEOS, _make_video, _try_video),
    'images': functools.partial(_run, _IMAGES, _make_images, _try_images),
    'weights': functools.partial(_run, _WEIGHTS, _make_weights, _try_weights),
}
