"""Video classification with Vision Transformers in JAX."""

import multiprocessing
import sys
from typing import TYPE_CHECKING

import absl.logging

__version__ = '0.1.0'

# Grain imports JAX where it finds it, and a decoding worker must not: it would cost every worker
# 150 MB and, on a TPU or GPU, could take the device from the trainer.
if multiprocessing.current_process().name.startswith('grain-process-prefetch'):
    absl.logging.set_verbosity(absl.logging.ERROR)  # Grain warns that there is no JAX
    sys.modules['jax'] = None

if TYPE_CHECKING:
    from vivit_jax.models.registry import create_model, list_models
    from vivit_jax.weights.load import load_checkpoint

__all__ = ['__version__', 'create_model', 'list_models', 'load_checkpoint']


def __getattr__(name: str):
    """Imports JAX only when something that needs it is asked for."""
    if name in ('create_model', 'list_models'):
        from vivit_jax.models import registry as module
    elif name == 'load_checkpoint':
        from vivit_jax.weights import load as module
    else:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(module, name)
