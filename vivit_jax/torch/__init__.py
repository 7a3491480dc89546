"""The models of this package in PyTorch, with equal results; needs no JAX.

>>> model, card = vivit_jax.torch.load_model('vivit.safetensors')
>>> logits = model(clip).logits  # clip: float [b t h w c] in card.preprocessing.value_range
"""

try:
    import torch  # noqa: F401
except ImportError as error:
    raise ImportError('vivit_jax.torch needs PyTorch: pip install torch') from error

from vivit_jax.models.registry import list_models
from vivit_jax.torch.create import create_model
from vivit_jax.torch.model_files import load_model, save_model

__all__ = ['create_model', 'list_models', 'load_model', 'save_model']
