"""Reads and writes files of named arrays: .npz, .safetensors, PyTorch; unpickles nothing."""

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors
from safetensors.numpy import save_file

from vivit_jax.atomic_files import replacing
from vivit_jax.errors import UserError

_METADATA = 'metadata'  # the entry of an .npz that holds what a .safetensors has in its header
_SHARDS = '.index.json'
_TORCH_NESTING = ('state_dict', 'model', 'model_state', 'module')


class Tensors(Mapping[str, np.ndarray]):
    """Arrays by name, each read from its file whenever it is asked for.

    Attributes:
        metadata: strings stored beside the arrays.
    """

    def __init__(
        self, loaders: Mapping[str, Callable[[], np.ndarray]], metadata: Mapping[str, str] = {}
    ):
        self._loaders, self.metadata = dict(loaders), dict(metadata)

    def __getitem__(self, name: str) -> np.ndarray:
        return self._loaders[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaders)

    def __len__(self) -> int:
        return len(self._loaders)


def file_format(path: Path) -> str:
    """The format of a file by its content: `'safetensors'`, `'npz'`, `'torch'` or `'msgpack'`.

    Raises:
        UserError: the file does not exist, is empty, or has none of these formats.
    """
    try:
        with path.open('rb') as file:
            head = file.read(16)
            size = file.seek(0, 2)
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}') from error
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any(name.endswith('data.pkl') for name in names):
            return 'torch'
        if names and all(name.endswith('.npy') for name in names):
            return 'npz'
    elif head[8:9] == b'{' and 8 + int.from_bytes(head[:8], 'little') <= size:
        return 'safetensors'
    elif head[:1] == b'\x80' and head[1:2] in b'\x02\x03\x04\x05':
        return 'torch'  # a pickle, as torch wrote them before 1.6
    elif _is_msgpack_map(head):
        return 'msgpack'
    raise UserError(
        f'{path} is no file of weights that can be read ({size} bytes, beginning with '
        f'{head[:8].hex(" ") or "nothing"}): expected .npz, .safetensors, a PyTorch .pth or a Flax '
        'msgpack checkpoint, whole; download it again, or give the path of the file itself'
    )


def open_tensors(path: str | Path) -> Tensors:
    """Opens an .npz, a .safetensors (also in shards) or a PyTorch file; reads arrays on demand.

    In a PyTorch file the arrays may be nested in `state_dict` or `model`.

    Args:
        path: the file, or the `.index.json` of a .safetensors in shards.

    Raises:
        UserError: the file is truncated, has another format, or would have to be unpickled.
    """
    path = Path(path)
    if path.name.endswith(_SHARDS):
        return _open_shards(path)
    kind = file_format(path)
    if kind == 'msgpack':
        raise UserError(f'{path} is a msgpack file, not one of .npz, .safetensors or .pth')
    return {'npz': _open_npz, 'safetensors': _open_safetensors, 'torch': _open_torch}[kind](path)


def save_tensors(path: Path, arrays: dict[str, np.ndarray], metadata: Mapping[str, str]):
    """Writes an .npz or a .safetensors, depending on the suffix, atomically.

    Args:
        path: the file to write.
        arrays: arrays by name. For a .safetensors they are removed from the dict one by one, so
            that memory need not hold a second copy of all of them; for an .npz the dict stays.
        metadata: strings to store beside the arrays.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as unfinished:
            if path.suffix == '.npz':
                with unfinished.open('wb') as file:
                    np.savez(file, **arrays, **{_METADATA: np.array(json.dumps(dict(metadata)))})
            else:
                contiguous = {name: np.ascontiguousarray(arrays.pop(name)) for name in list(arrays)}
                save_file(contiguous, unfinished, dict(metadata))
    except (OSError, safetensors.SafetensorError) as error:
        raise UserError(f'{path} cannot be written: {error}') from error


def _is_msgpack_map(head: bytes) -> bool:
    """Whether bytes may be the beginning of a msgpack map with strings as keys."""
    if not head:
        return False
    header = {0xDE: 3, 0xDF: 5}.get(head[0], 1 if 0x80 < head[0] < 0x90 else len(head))
    key = head[header : header + 1]
    return bool(key) and (0xA0 <= key[0] < 0xC0 or key[0] == 0xD9)


def _open_npz(path: Path) -> Tensors:
    archive = np.load(path, allow_pickle=False)

    def load(name: str) -> np.ndarray:
        try:
            array = archive[name]
        except (ValueError, zipfile.BadZipFile, EOFError, OSError) as error:
            raise UserError(
                f'{path}: {name} cannot be read ({error}); it is damaged, or a pickled object, '
                'which is never loaded'
            ) from error
        # NumPy has no bfloat16: an .npz holds such arrays as plain pairs of bytes.
        return array.view(ml_dtypes.bfloat16) if array.dtype == 'V2' else array

    metadata = json.loads(str(load(_METADATA))) if _METADATA in archive.files else {}
    names = [name for name in archive.files if name != _METADATA]
    return Tensors({name: lambda name=name: load(name) for name in names}, metadata)


def _open_safetensors(path: Path) -> Tensors:
    def load(name: str) -> np.ndarray:
        # Opened anew for each array: an open file keeps in memory everything that it has read.
        with safetensors.safe_open(path, 'np') as file:
            return file.get_tensor(name)

    try:
        with safetensors.safe_open(path, 'np') as file:
            names, metadata = file.keys(), file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise UserError(f'{path} is damaged: {error}') from error
    return Tensors({name: lambda name=name: load(name) for name in names}, metadata)


def _open_shards(index: Path) -> Tensors:
    try:
        files = json.loads(index.read_text('utf-8'))['weight_map']
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f'{index} is no list of shards: {error!r}') from error
    shards = {name: _open_safetensors(index.parent / name) for name in sorted(set(files.values()))}
    missing = [name for name, file in files.items() if name not in shards[file]]
    if missing:
        raise UserError(f'{index} names tensors that its files lack: {", ".join(missing)}')
    return Tensors({name: lambda name=name: shards[files[name]][name] for name in files})


def _open_torch(path: Path) -> Tensors:
    try:
        import torch
    except ImportError as error:
        raise UserError(f'{path} is a PyTorch file: pip install torch') from error
    try:
        content = torch.load(
            path, map_location='cpu', weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except Exception as error:  # torch raises many kinds
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f'{path} cannot be read without unpickling objects, which could run code: {reason}. '
            'Save its state_dict as .safetensors where you trust it'
        ) from error
    for name in _TORCH_NESTING:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    tensors = {}
    if isinstance(content, Mapping):
        tensors = {k: v for k, v in content.items() if isinstance(v, torch.Tensor)}
    if not tensors:
        raise UserError(f'{path} holds no state_dict, but a {type(content).__name__}')

    def load(tensor) -> np.ndarray:
        if tensor.dtype == torch.bfloat16:
            return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return tensor.detach().numpy()

    return Tensors({str(name): lambda x=x: load(x) for name, x in tensors.items()})
