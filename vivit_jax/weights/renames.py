"""Renames of arrays by tables of regular expressions, for files with older or newer names."""

import re

Renames = tuple[tuple[str, str], ...]  # pattern of a part of a name, and its replacement


def rename(name: str, renames: Renames) -> str:
    """Applies every replacement of a table to a name, one after the other."""
    for pattern, replacement in renames:
        name = re.sub(pattern, replacement, name)
    return name
