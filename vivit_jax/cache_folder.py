"""The user's cache folder."""

import os
from pathlib import Path


def user_cache_folder() -> Path:
    """`vivit_jax` in `$XDG_CACHE_HOME`, or else in `~/.cache`."""
    return Path(os.environ.get('XDG_CACHE_HOME', Path.home() / '.cache')) / 'vivit_jax'
