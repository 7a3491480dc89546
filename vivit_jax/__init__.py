"""Video classification with Vision Transformers in JAX.

    Predictor         names the action in videos
    list_models       the names of the models
    create_model      makes a Flax model
    load_checkpoint   reads a trained model: a run folder, or weights from elsewhere
    save_checkpoint   writes a model that your own code has trained
    Preprocessing     how videos become the clips that a model takes

>>> predict = vivit_jax.Predictor('runs/demo')
>>> predict('video.mp4').top(5)

`vivit_jax.torch` has the same models for PyTorch. `python -m vivit_jax` lists the commands.
"""

import importlib
import multiprocessing
import sys
from typing import TYPE_CHECKING

__version__ = '0.1.0'

# Grain imports JAX where it finds it, and a decoding worker must not: it would cost every worker
# 150 MB and, on a TPU or GPU, could take the device from the trainer.
if multiprocessing.current_process().name.startswith('grain-process-prefetch'):
    import absl.logging

    absl.logging.set_verbosity(absl.logging.ERROR)  # Grain warns that there is no JAX
    sys.modules['jax'] = None

if TYPE_CHECKING:
    from vivit_jax.models.registry import create_model, list_models
    from vivit_jax.predictor import Predictor
    from vivit_jax.video.preprocessing import Preprocessing
    from vivit_jax.weights.load import load_checkpoint
    from vivit_jax.weights.save import save_checkpoint

__all__ = [
    'Predictor',
    'Preprocessing',
    '__version__',
    'create_model',
    'list_models',
    'load_checkpoint',
    'save_checkpoint',
]

# The modules are imported when a name is asked for: most of them import JAX, which takes seconds.
_MODULES = {
    'Predictor': 'vivit_jax.predictor',
    'Preprocessing': 'vivit_jax.video.preprocessing',
    'create_model': 'vivit_jax.models.registry',
    'list_models': 'vivit_jax.models.registry',
    'load_checkpoint': 'vivit_jax.weights.load',
    'save_checkpoint': 'vivit_jax.weights.save',
}


def __getattr__(name: str):
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return __all__
