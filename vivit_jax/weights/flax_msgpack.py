"""Reads parameters from the train states that Flax writes as msgpack.

The package `msgpack`, which Flax depends on, reads the file in one pass. The pass skips the
optimizer's state and converts each array to float32 before it reads the next one, so that memory
stays near the size of the parameters.
"""

from pathlib import Path

import jax.numpy as jnp
import msgpack
import numpy as np

from vivit_jax.errors import UserError

_CHUNKED = '__msgpack_chunked_array__'
_NDARRAY, _COMPLEX, _SCALAR = 1, 2, 3  # Flax's extension types


def read_train_state(path: Path) -> tuple[dict, int | None]:
    """Reads the parameters, a tree of arrays, and the number of updates (None if not stored).

    Older train states hold the parameters as the optimizer's target, newer ones beside the
    optimizer; both are read.

    Raises:
        UserError: the file is damaged or holds no parameters.
    """
    try:
        size = path.stat().st_size
        with path.open('rb') as file:
            unpacker = msgpack.Unpacker(
                file,
                read_size=2**20,
                max_buffer_size=2**31 - 1,
                ext_hook=_decode,
                object_hook=_join_chunks,
                strict_map_key=False,
                max_array_len=size,  # each entry has at least a byte
                max_map_len=size,
            )
            fields = _read_fields(unpacker)
    except OSError as error:
        raise UserError(f'{path} cannot be read: {error.strerror}') from error
    except msgpack.OutOfData as error:
        raise UserError(f'{path} is truncated: copy it again, whole') from error
    except (msgpack.UnpackException, ValueError, TypeError, KeyError, RecursionError) as error:
        raise UserError(f'{path} is damaged, or no train state of Flax: {error!r}') from error
    tree = fields.get('target', fields.get('params'))
    while isinstance(tree, dict) and 'params' in tree:
        tree = tree['params']
    if not isinstance(tree, dict) or not tree:
        raise UserError(
            f'{path} is no train state: it holds {", ".join(map(str, fields)) or "nothing"}, but '
            'no parameters under "optimizer" and "target", or under "params". Give the file '
            '"checkpoint" or "checkpoint_<step>" that the training wrote'
        )
    step = fields.get('global_step')
    return tree, None if step is None else int(step)


def _read_fields(unpacker: msgpack.Unpacker) -> dict:
    """Reads parameters and step of a train state; other fields become None and are never loaded."""
    fields = {}
    for _ in range(unpacker.read_map_header()):
        key = unpacker.unpack()
        if key == 'optimizer':  # Flax before 0.6 stores the parameters as its target
            fields |= _read_fields(unpacker)
        elif key in ('target', 'params', 'global_step'):
            fields[key] = unpacker.unpack()
        else:
            unpacker.skip()
            fields.setdefault(key, None)
    return fields


def _decode(code: int, data: bytes) -> np.ndarray | np.generic | complex:
    """Unpacks an array or a number that Flax packed; converts any float type to float32."""
    if code == _COMPLEX:
        return complex(*msgpack.unpackb(data))
    if code not in (_NDARRAY, _SCALAR):
        raise ValueError(f'unknown extension type {code}')
    shape, dtype, buffer = msgpack.unpackb(data, raw=True)
    array = np.frombuffer(buffer, jnp.dtype(dtype.decode())).reshape(shape)
    if jnp.issubdtype(array.dtype, jnp.floating):
        array = array.astype(np.float32)
    return array[()] if code == _SCALAR else array


def _join_chunks(tree: dict) -> dict | np.ndarray:
    """Joins an array that Flax packed in parts because of its size; returns other dicts as is."""
    if _CHUNKED not in tree:
        return tree
    shape, chunks = (
        [tree[key][str(i)] for i in range(len(tree[key]))] for key in ('shape', 'chunks')
    )
    return np.concatenate(chunks).reshape(shape)
