"""Model names, and how a model is made from one.

`MODELS` maps a name to the specification of the model. In the folder of the specification,
`model.py` has a class of the same name for JAX, and `torch.py` one for PyTorch.
"""

import importlib
from typing import TYPE_CHECKING

from vivit_jax.errors import near_words
from vivit_jax.layers.specification import Specification
from vivit_jax.models.convivit.specification import ConViViT
from vivit_jax.models.ctn.specification import Ctn
from vivit_jax.models.published import Published
from vivit_jax.models.rpe_stdt.specification import RpeStdt
from vivit_jax.models.vivit.specification import (
    FactorizedDotProduct,
    FactorizedEncoder,
    FactorizedSelfAttention,
    Joint,
)

if TYPE_CHECKING:
    import flax.linen as nn

MODELS: dict[str, type[Specification]] = {
    'vivit_joint': Joint,
    'vivit_fe': FactorizedEncoder,
    'vivit_fsa': FactorizedSelfAttention,
    'vivit_fdp': FactorizedDotProduct,
    'convivit': ConViViT,
    'rpe_stdt': RpeStdt,
    'ctn': Ctn,
}


def list_models() -> list[str]:
    """Names that `create_model` takes."""
    return list(MODELS)


def model_keywords(name: str) -> dict[str, object]:
    """Every keyword of a model with its default.

    Raises:
        ValueError: unknown model; the message offers the near names.
    """
    if name not in MODELS:
        raise ValueError(f'unknown model {name!r}{near_words(name, MODELS)}')
    return MODELS[name].defaults()


def specify(name: str, size: str | None = None, **keywords) -> Specification:
    """Everything that determines a model, completed and checked; needs neither JAX nor PyTorch.

    Args:
        name: one of `list_models()`.
        size: `'B/16x2'` style preset, or one of the model's own `PRESETS`; explicit keywords win.
        **keywords: fields of the model's specification.

    Raises:
        ValueError: unknown name, keyword or choice, or sizes that do not fit each other.
    """
    known = model_keywords(name)
    for keyword in keywords:
        if keyword not in known:
            raise ValueError(f'{name} has no keyword {keyword!r}{near_words(keyword, known)}')
    return MODELS[name].from_keywords(keywords, size)


def find_implementation(spec: Specification, module: str) -> type:
    """The class of a specification's name in the module `'model'` or `'torch'` of its folder."""
    folder = type(spec).__module__.rpartition('.')[0]
    return getattr(importlib.import_module(f'{folder}.{module}'), type(spec).__name__)


def published_models() -> list[Published]:
    """The published figures of all models."""
    folders = dict.fromkeys(spec.__module__.rpartition('.')[0] for spec in MODELS.values())
    modules = [importlib.import_module(f'{folder}.published') for folder in folders]
    return [published for module in modules for published in module.PUBLISHED]


def create_model(name: str, size: str | None = None, **keywords) -> 'nn.Module':
    """Makes a model.

    >>> model = create_model('vivit_fe', size='S/16x2', num_classes=51)
    >>> model.spec.hidden_size
    384

    Args:
        name, size, **keywords: as in `specify`.

    Raises:
        ValueError: unknown name, keyword or choice, or sizes that do not fit each other.
    """
    import jax.numpy as jnp

    if 'dtype' in keywords:
        try:
            keywords['dtype'] = jnp.dtype(keywords['dtype']).name
        except TypeError as error:
            raise ValueError(
                f"dtype={keywords['dtype']!r} is no type such as 'bfloat16'"
            ) from error
    spec = specify(name, size, **keywords)
    return find_implementation(spec, 'model')(spec)
