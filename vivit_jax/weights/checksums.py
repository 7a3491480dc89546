"""Checksums of the files of a checkpoint, which tell a damaged checkpoint from a good one."""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from vivit_jax.atomic_files import replace_text

_FILE = 'checksums.json'
_TIMES = '_CHECKPOINT_METADATA'  # JSON to which Orbax adds the time when it renames the folder
_ADDED_LATER = 'metrics'  # a folder


def write_checksums(checkpoint: Path):
    """Reads all files of the folder of a checkpoint, and adds a file with their checksums.

    All of them are on the disk when this returns, before an older checkpoint may be deleted.
    """
    for path in filter(Path.is_file, checkpoint.rglob('*')):
        with path.open('rb') as file:
            os.fsync(file.fileno())
    sums = {str(path.relative_to(checkpoint)): _checksum(path) for path in _files(checkpoint)}
    replace_text(checkpoint / _FILE, json.dumps(sums, indent=1) + '\n')


def find_damage(checkpoint: Path) -> str | None:
    """The first file that is missing, or not as it was written; None if all are.

    Of a checkpoint without checksums, which older versions wrote, nothing is known: None.
    """
    path = checkpoint / _FILE
    if not path.exists():
        return None
    try:
        sums = json.loads(path.read_text(encoding='utf-8')).items()
    except (ValueError, AttributeError):
        return _FILE
    try:
        json.loads((checkpoint / _TIMES).read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return _TIMES
    for name, checksum in sums:
        try:
            if _checksum(checkpoint / name) != checksum:
                return name
        except OSError:
            return name
    return None


def find_damaged_metrics(folder: Path) -> list[Path]:
    """The folders of metrics that cannot be read, of all checkpoints in a folder."""
    found = []
    for path in folder.glob('*/metrics/metrics'):
        if not path.parents[1].name.isdigit():
            continue  # is being written
        try:
            json.loads(path.read_text(encoding='utf-8'))
        except ValueError:
            found.append(path.parent)
    return found


def _files(checkpoint: Path) -> Iterator[Path]:
    for path in sorted(checkpoint.rglob('*')):
        parts = path.relative_to(checkpoint).parts
        if path.is_file() and parts[0] not in (_FILE, _TIMES, _ADDED_LATER):
            yield path


def _checksum(path: Path) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, 'blake2b').hexdigest()[:32]
