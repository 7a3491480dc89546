"""Class names in text files, one name a line."""

import collections
import os
from pathlib import Path

from vivit_jax.annotations.annotation import AnnotationError
from vivit_jax.errors import UserError
from vivit_jax.heads import LabelNames


def read_label_map(path: str | os.PathLike) -> tuple[str, ...]:
    """Class names, one a line, in the order of their indices."""
    try:
        lines = Path(path).read_text(encoding='utf-8-sig').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, 'strerror', None) or error
        raise AnnotationError(f'label map {path}: {reason}') from error
    names = tuple(line.strip() for line in lines if line.strip())
    twice = [name for name, count in collections.Counter(names).items() if count > 1]
    if twice or not names:
        raise AnnotationError(f'label map {path}: ' + (f'{twice} twice' if twice else 'is empty'))
    return names


def read_label_maps(path: str, heads: tuple[str, ...]) -> LabelNames:
    """Class names from a file with one a line, or from one for each of several heads.

    Args:
        path: of the file; with `{head}` in it where there are several.
        heads: their names.

    Raises:
        UserError: a file cannot be used, or there is one for several heads.
    """
    if len(heads) < 2:
        return read_label_map(path)
    if '{head}' not in path:
        raise UserError(
            f'label map {path} must contain {{head}}, which stands for {", ".join(heads)}: '
            'there is a file for each'
        )
    return {head: read_label_map(path.replace('{head}', head)) for head in heads}
