"""The machine, and section a: its speed in a matrix product and in a copy."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp

from accelerator_sections.plan import Settings
from accelerator_sections.rows import attempt
from accelerator_sections.timing import measure_time
from vivit_jax.models.registry import list_models

_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'numpy', 'torch', 'transformers')
_CUDNN = ('nvidia-cudnn-cu13', 'nvidia-cudnn-cu12')


def describe(settings: Settings, rows: Sequence[dict]) -> Iterator[dict]:
    """The row of the machine, with the models that this checkout has."""
    device = jax.devices()[0]
    yield {
        'status': 'measured',
        'platform': device.platform,
        'device_kind': device.device_kind,
        'num_devices': jax.device_count(),
        'memory_gib': _memory_limit(device) and round(_memory_limit(device) / 2**30, 1),
        'date': datetime.datetime.now().astimezone().isoformat(timespec='minutes'),
        'cpus': os.cpu_count(),
        'python': platform.python_version(),
        'driver': _driver(),
        'packages': {name: _version(name) for name in (*_PACKAGES, *_CUDNN) if _version(name)},
        'models': list_models(),
    }


def products(settings: Settings, rows: Sequence[dict]) -> Iterator[dict]:
    """Times square matrix products in bfloat16 of random numbers, as a GPU is faster on zeros."""
    for size in (64, 128) if settings.tiny else (4096, 8192, 16384):
        yield attempt({'name': f'matrix product {size}'}, _product, size, settings)


def copy(settings: Settings, rows: Sequence[dict]) -> Iterator[dict]:
    """Times reading, negating and writing float32 numbers."""
    size = 2**16 if settings.tiny else 2**28
    yield attempt({'name': f'copy of {4 * size / 2**20:g} MiB'}, _copy, size, settings)


def _product(size: int, settings: Settings) -> dict:
    keys = jax.random.split(jax.random.key(0))
    a, b = (jax.random.normal(key, (size, size), jnp.bfloat16) for key in keys)
    multiply = jax.jit(jnp.matmul).lower(a, b).compile()
    times = measure_time(lambda: multiply(a, b), jax.block_until_ready, settings.seconds)
    return {**times, 'tflops': 2e-9 * size**3 / times['ms']}


def _copy(size: int, settings: Settings) -> dict:
    x = jax.random.normal(jax.random.key(0), size)
    negate = jax.jit(jnp.negative).lower(x).compile()
    times = measure_time(lambda: negate(x), jax.block_until_ready, settings.seconds)
    return {**times, 'gb_per_s': 2e-6 * x.nbytes / times['ms']}


def _memory_limit(device: jax.Device) -> int | None:
    return (device.memory_stats() or {}).get('bytes_limit')


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _driver() -> str | None:
    """Version of NVIDIA's driver."""
    command = ['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader']
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.split('\n')[0].strip()
