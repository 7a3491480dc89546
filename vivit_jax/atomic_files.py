"""Atomic file writes: a reader sees the old file or the whole new one, never a part."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives the path of a new file, which takes the place of `path` when the block ends.

    An error in the block removes the new file and leaves `path` as it was.

    >>> with replacing(path) as unfinished:
    ...     unfinished.write_bytes(content)
    """
    unfinished = path.with_name(f'.{path.name}.unfinished')
    try:
        yield unfinished
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def replace_text(path: Path, text: str):
    """Writes a text in UTF-8, which is on the disk when this returns."""
    with replacing(path) as unfinished, unfinished.open('w', encoding='utf-8') as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
