"""Keeps compiled programs for the next run of a command."""

import hashlib
import platform
from pathlib import Path

import jax

from vivit_jax.cache_folder import user_cache_folder


def use_compilation_cache():
    """Keeps programs that take over a second to compile in `compiled` in the user's cache folder.

    JAX finds a program again by its code, its options, and the version of JAX and of the devices.
    For CPUs it does not know the exact kind, on which the code depends, and home folders may be on
    several machines: each kind of CPU gets a folder of its own. If the user has set a folder, with
    JAX_COMPILATION_CACHE_DIR, JAX keeps to it.
    """
    if jax.config.jax_compilation_cache_dir:
        return
    folder = user_cache_folder() / 'compiled'
    if jax.default_backend() == 'cpu':
        folder /= hashlib.sha256(_describe_cpu().encode()).hexdigest()[:12]
    jax.config.update('jax_compilation_cache_dir', str(folder))


def _describe_cpu() -> str:
    path = Path('/proc/cpuinfo')
    if not path.exists():
        return f'{platform.platform()} {platform.processor()}'
    lines = path.read_text().splitlines()
    return '\n'.join(
        sorted({x for x in lines if x.startswith(('model name', 'flags', 'Features'))})
    )
