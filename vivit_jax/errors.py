"""The error of a mistake that a user can mend."""

import contextlib
import difflib
import functools
import math
import numbers
import os
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

__all__ = ['UserError']


class UserError(ValueError):
    """Input, configuration or files cannot be used; the message says what to do.

    The commands print it without a traceback.
    """


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Raises a UserError that names the path if something in the block cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f'{path} cannot be written ({error.strerror or error}): make room, or mend or name '
            'another folder, and give the same command again'
        ) from error


def describe_range(low: float, high: float) -> str:
    """`'at least 1'` or `'from 0 to 1'`; `''` for all numbers."""
    if high == math.inf:
        return '' if low == -math.inf else f'at least {low}'
    return f'from {low} to {high}'


def check_range(name: str, value: float, low: float, high: float = math.inf):
    """Raises a UserError unless `low <= value <= high`; the message starts with `name`."""
    if not low <= value <= high:
        raise UserError(f'{name}={value} must be {describe_range(low, high)}')


def check_types(value: object, prefix: str = ''):
    """Raises a ValueError if a field of a dataclass holds something else than its type hint says.

    Checks numbers, texts, mappings and tuples, of any length; not `Literal`. An int is a float too,
    and NaN and Inf are none.

    Args:
        value: an instance of a dataclass.
        prefix: what stands before the names of the fields in messages.
    """
    for name, hint in _type_hints(type(value)).items():
        found = getattr(value, name)
        if typing.get_origin(hint) is not typing.ClassVar and not _is_of_type(found, hint):
            shown = getattr(hint, '__name__', hint) if typing.get_args(hint) == () else hint
            is_number = isinstance(found, numbers.Real) and not isinstance(found, bool)
            wanted = 'a finite number' if hint is float and is_number else f'of the type {shown}'
            raise ValueError(f'{prefix}{name}={found!r} must be {wanted}')


_type_hints = functools.cache(typing.get_type_hints)  # finding them takes milliseconds


def _is_of_type(value: object, hint: object) -> bool:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return True
    if origin in (types.UnionType, typing.Union):
        return any(_is_of_type(value, arg) for arg in args)
    if origin is tuple:
        return isinstance(value, list | tuple) and all(_is_of_type(x, args[0]) for x in value)
    if origin in (Mapping, dict):
        return isinstance(value, Mapping) and all(_is_of_type(x, args[1]) for x in value.values())
    if hint is float:
        return _is_of_type(value, numbers.Real) and abs(value) <= sys.float_info.max
    kind = numbers.Integral if hint is int else hint
    return isinstance(value, kind) and (hint is bool or not isinstance(value, bool))


def near_words(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'vivit_fe'?"`, or all known words."""
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    return f'; did you mean {" or ".join(map(repr, near))}?' if near else f'; known: {list(known)}'


def near_paths(path: str | Path) -> str:
    """What there is instead of a path that does not exist, as the end of a message.

    `'; did you mean runs/demo?'`, or the first names in the nearest folder that exists, or
    `describe_closed(path)`.
    """
    if closed := describe_closed(path):
        return closed
    missing = Path(path)
    while missing != missing.parent and not missing.parent.is_dir():
        missing = missing.parent
    folder = missing.parent
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith('.'))
    except OSError:
        return ''
    near = difflib.get_close_matches(missing.name, names, n=3, cutoff=0.5)
    if near:
        return f'; did you mean {" or ".join(str(folder / name) for name in near)}?'
    some = ', '.join(names[:5]) + (', …' if len(names) > 5 else '')
    return f'; {folder.absolute()} holds {some or "nothing"}'


def describe_closed(path: str | Path) -> str:
    """That a path may exist, but this user may not see it, as the end of a message; else `''`."""
    try:
        os.stat(path)
    except PermissionError:
        return '; if it exists, this user may not enter its folder (Permission denied)'
    except (OSError, ValueError):
        pass
    return ''


def list_some(items: Sequence[str], most: int = 5) -> str:
    """`'a, b, c, d, e, … (9 in all)'`."""
    return ', '.join(items[:most]) + (f', … ({len(items)} in all)' if len(items) > most else '')
