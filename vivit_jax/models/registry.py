"""The names of models, and the function that makes a model from its name.

A specification's folder has two implementations, which are classes of the same name: `model.py`
for JAX and `torch.py` for PyTorch.
"""

import importlib
from typing import TYPE_CHECKING

import numpy as np

from vivit_jax.errors import near_words
from vivit_jax.layers.specification import Specification
from vivit_jax.models.convivit.specification import ConViViT
from vivit_jax.models.ctn.specification import Ctn
from vivit_jax.models.f4d.specification import F4d, V4d
from vivit_jax.models.mfst.specification import Mfst
from vivit_jax.models.rpe_stdt.specification import RpeStdt
from vivit_jax.models.vivit import specification as vivit

if TYPE_CHECKING:
    import flax.linen as nn

MODELS: dict[str, type[Specification]] = {
    'vivit_joint': vivit.Joint,
    'vivit_fe': vivit.FactorizedEncoder,
    'vivit_fsa': vivit.FactorizedSelfAttention,
    'vivit_fdp': vivit.FactorizedDotProduct,
    'convivit': ConViViT,
    'rpe_stdt': RpeStdt,
    'ctn': Ctn,
    'mfst': Mfst,
    'f4d': F4d,
    'v4d': V4d,
}


def list_models() -> list[str]:
    """The names that `create_model` takes."""
    return list(MODELS)


def model_keywords(name: str) -> dict[str, object]:
    """Every keyword of a model with its default.

    Raises:
        ValueError: unknown name.
    """
    if name not in MODELS:
        raise ValueError(f'unknown model {name!r}{near_words(name, MODELS)}')
    return MODELS[name].defaults()


def specify(name: str, size: str | None = None, **keywords) -> Specification:
    """The specification of a model; needs neither JAX nor PyTorch. See `create_model`."""
    known = model_keywords(name)
    if not isinstance(keywords.get('dtype', ''), str):
        keywords['dtype'] = np.dtype(keywords['dtype']).name
    for keyword in keywords:
        if keyword not in known:
            raise ValueError(f'{name} has no keyword {keyword!r}{near_words(keyword, known)}')
    return MODELS[name].from_keywords(keywords, size)


def find_keywords(spec: Specification) -> dict[str, object]:
    """The arguments of `create_model` that make a model of this specification.

    They are the name, the classes, and every keyword that differs from its default.
    """
    name = next(name for name, kind in MODELS.items() if kind is type(spec))
    keywords = {
        keyword: getattr(spec, keyword)
        for keyword, default in spec.defaults().items()
        if keyword == 'num_classes' or getattr(spec, keyword) != default
    }
    return {'name': name, **keywords}


def find_implementation(spec: Specification, module: str) -> type:
    """The class that implements a specification, in its folder's module `'model'` or `'torch'`.

    If the model sees RGB and depth, the class is `Fusion`, which makes a model for each of the two.
    """
    folder, name = type(spec).__module__.rpartition('.')[0], type(spec).__name__
    if spec.modality == 'rgbd':
        folder, name = 'vivit_jax.models.fusion', 'Fusion'
    return getattr(importlib.import_module(f'{folder}.{module}'), name)


def create_model(name: str, size: str | None = None, **keywords) -> 'nn.Module':
    """Makes a model.

    >>> model = create_model('vivit_fe', size='S/16x2', num_classes=51)
    >>> model.spec.hidden_size
    384

    Args:
        name: one of `list_models()`.
        size: `'B/16x2'` style preset, or one of the model's own `PRESETS`; explicit keywords win.
        **keywords: fields of the model's specification.

    Raises:
        ValueError: unknown name, keyword or choice, or sizes that do not fit each other.
    """
    spec = specify(name, size, **keywords)
    return find_implementation(spec, 'model')(spec)
