"""Reads JSON that stands in or beside files of weights, which may come from anybody."""

import json
from pathlib import Path

from vivit_jax.errors import UserError

_MOST_BYTES = 2**28


def read_json(path: Path) -> dict:
    """The object in a JSON file.

    Raises:
        UserError: there is no such file, it is no regular file, or it holds no JSON object.
    """
    try:
        if path.exists() and not (path.is_file() and path.stat().st_size <= _MOST_BYTES):
            raise UserError(f'{path} cannot be read as JSON: it is no regular file, or too large')
        text = path.read_text('utf-8')
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'{path} cannot be read as JSON: {error}') from error
    return parse_json(text, str(path))


def parse_json(text: str, source: str) -> dict:
    """The object in a text of JSON.

    Args:
        text: the text.
        source: where the text stands, for messages.

    Raises:
        UserError: the text is no JSON object, or one of thousands of levels.
    """
    try:
        content = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f'{source} cannot be read as JSON: {error}') from error
    if not isinstance(content, dict):
        raise UserError(f'{source} holds a {type(content).__name__}, and must be a JSON object')
    return content
