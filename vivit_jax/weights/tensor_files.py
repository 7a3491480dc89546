"""Reads and writes files of named arrays: .npz, .safetensors, PyTorch; unpickles nothing."""

import functools
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors
from safetensors.numpy import save_file

from vivit_jax.atomic_files import replacing
from vivit_jax.errors import UserError
from vivit_jax.weights.json_files import parse_json, read_json

_METADATA = 'metadata'  # the entry of an .npz that holds what a .safetensors has in its header
_SHARDS = '.index.json'
# Weights hardly compress: arrays may have so many times the size of their file, or so many bytes.
_MOST_EXPANSION, _SMALL = 20, 2**28
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
        UserError: the file does not exist, is no regular file, is empty, has none of these
            formats, or is an archive that unpacks to many times its size.
    """
    names = []
    try:
        if path.exists() and not path.is_file():
            raise UserError(f'{path} is no regular file: give the path of a file of weights')
        with path.open('rb') as file:
            head = file.read(16)
            size = file.seek(0, 2)
        is_zip = zipfile.is_zipfile(path)
        if is_zip:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
                _check_expansion(path, sum(info.file_size for info in archive.infolist()))
    except (OSError, zipfile.BadZipFile) as error:
        reason = getattr(error, 'strerror', None) or error
        raise UserError(f'{path} cannot be read: {reason}') from error
    if is_zip:
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
        UserError: the file is truncated, has another format, or would have to be unpickled. An
            array that is read raises this error too, if it is damaged or holds other numbers than
            floats.
    """
    path = Path(path)
    try:
        if path.name.endswith(_SHARDS):
            tensors = _open_shards(path)
        elif (kind := file_format(path)) in _OPENERS:
            tensors = _OPENERS[kind](path)
        else:
            raise UserError(f'{path} is a {kind} file, not one of .npz, .safetensors or .pth')
    except UserError:
        raise
    except Exception as error:  # the libraries raise many kinds
        raise UserError(f'{path} is damaged: {_first_line(error)}') from error

    def load(name: str) -> np.ndarray:
        try:
            array = tensors[name]
        except Exception as error:
            raise UserError(
                f'{path}: {name} cannot be read ({_first_line(error)}): it is damaged, or no plain '
                'array of floats; a pickled object is never loaded'
            ) from error
        check_floats(array, name, path)
        return array

    loaders = {name: functools.partial(load, name) for name in tensors}
    return Tensors(loaders, tensors.metadata)


def check_floats(array: np.ndarray, name: str, path: Path):
    """Raises a UserError that names an array, unless the array holds floats."""
    if array.dtype.kind != 'f' and array.dtype != ml_dtypes.bfloat16:
        raise UserError(
            f'{path}: {name} holds {array.dtype}, and weights are floats of 16 bits or more: the '
            'file is damaged, or quantized; take the file of floats'
        )


def check_finite(arrays: Mapping[str, np.ndarray], source: str, advice: str = ''):
    """Raises a UserError that names the first array that holds NaN or Inf.

    Args:
        arrays: floats, by name.
        source: where the arrays come from, for the message.
        advice: how to go on in spite of them, for the message.
    """
    for name, value in arrays.items():
        array = np.asarray(value)
        if not np.isfinite(array).all():
            count = array.size - np.isfinite(array).sum()
            raise UserError(
                f'{source}: {name} holds {count} values that are not finite (nan or inf) among '
                f'{array.size}: the file is damaged, or the training went wrong; take an earlier '
                f'or another one{advice}'
            )


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


def _check_expansion(path: Path, size: int):
    if size > max(_SMALL, _MOST_EXPANSION * path.stat().st_size):
        raise UserError(
            f'{path} has {path.stat().st_size / 1e6:.1f} MB and claims to hold {size / 1e6:.0f} MB '
            'of arrays, which no file of weights does: download it again, from a source that you '
            'trust'
        )


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _open_npz(path: Path) -> Tensors:
    archive = np.load(path, allow_pickle=False)

    def load(name: str) -> np.ndarray:
        array = archive[name]
        # NumPy has no bfloat16: an .npz holds such arrays as plain pairs of bytes.
        return array.view(ml_dtypes.bfloat16) if array.dtype == 'V2' else array

    metadata = {}
    if _METADATA in archive.files:
        metadata = parse_json(str(load(_METADATA)), f'{path}: the entry {_METADATA}')
    names = [name for name in archive.files if name != _METADATA]
    return Tensors({name: lambda name=name: load(name) for name in names}, metadata)


def _open_safetensors(path: Path) -> Tensors:
    def load(name: str) -> np.ndarray:
        # Opened anew for each array: an open file keeps in memory everything that it has read.
        with safetensors.safe_open(path, 'np') as file:
            return file.get_tensor(name)

    with safetensors.safe_open(path, 'np') as file:
        names, metadata = file.keys(), file.metadata() or {}
    return Tensors({name: lambda name=name: load(name) for name in names}, metadata)


def _open_shards(index: Path) -> Tensors:
    files = read_json(index).get('weight_map')
    if not isinstance(files, dict) or not files:
        raise UserError(f'{index} is no list of shards: "weight_map" is not tensor -> file')
    shards = {}
    for file in dict.fromkeys(map(str, files.values())):
        if Path(file).name != file:
            raise UserError(f'{index} names {file!r}, which is no file of its own folder')
        if file_format(index.parent / file) != 'safetensors':
            raise UserError(f'{index} names {file}, which is no .safetensors')
        shards[file] = _open_safetensors(index.parent / file)
    missing = [name for name, file in files.items() if name not in shards[str(file)]]
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
        # torch's own message goes on to advise how to run the code.
        found = re.search(r'GLOBAL (\S+)', str(error))
        reason = f'it holds the object {found[1]}' if found else _first_line(error)
        if 'weights only' in reason.lower():
            reason = 'it is damaged, or holds objects'
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
    # Views repeat what is stored once.
    _check_expansion(path, sum(x.numel() * x.element_size() for x in tensors.values()))

    def load(tensor) -> np.ndarray:
        if tensor.dtype == torch.bfloat16:
            return tensor.detach().view(torch.int16).numpy().view(ml_dtypes.bfloat16)
        return tensor.detach().numpy()

    return Tensors({str(name): lambda x=x: load(x) for name, x in tensors.items()})


_OPENERS = {'npz': _open_npz, 'safetensors': _open_safetensors, 'torch': _open_torch}
