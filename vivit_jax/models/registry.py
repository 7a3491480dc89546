"""Model names and how a model is made from one."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from vivit_jax.errors import near_words
from vivit_jax.layers.attention_kernels import IMPLEMENTATIONS
from vivit_jax.layers.encoder import REMAT_POLICIES
from vivit_jax.models import vivit
from vivit_jax.models.convivit import ConViViT
from vivit_jax.models.ctn import Ctn
from vivit_jax.models.keywords import resolve_keywords
from vivit_jax.models.rpe_stdt import RpeStdt

MODELS = {
    'vivit_joint': vivit.Joint,
    'vivit_fe': vivit.FactorizedEncoder,
    'vivit_fsa': vivit.FactorizedSelfAttention,
    'vivit_fdp': vivit.FactorizedDotProduct,
    'convivit': ConViViT,
    'rpe_stdt': RpeStdt,
    'ctn': Ctn,
}

# How JAX computes a model; the other keywords say what it computes.
_CHOICES = {
    'attention_implementation': IMPLEMENTATIONS,
    'remat': ('none', *REMAT_POLICIES),
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
    return {
        field.name: field.default
        for field in dataclasses.fields(MODELS[name])
        if field.name not in ('parent', 'name')
    }


def create_model(name: str, size: str | None = None, **keywords) -> nn.Module:
    """Makes a model.

    >>> model = create_model('vivit_fe', size='S/16x2', num_classes=51)

    Args:
        name: one of `list_models()`.
        size: `'B/16x2'` style preset, or one of the model's own `PRESETS`; explicit keywords win.
        **keywords: fields of the model's class.

    Raises:
        ValueError: unknown name, keyword or choice, or sizes that do not fit each other.
    """
    known = model_keywords(name)
    model = MODELS[name]
    choices = {**_CHOICES, **model.CHOICES}
    values = resolve_keywords(name, known, size, keywords, choices, model.PRESETS)
    model.check(values)
    try:
        jnp.dtype(values['dtype'])
    except TypeError as error:
        raise ValueError(f"dtype={values['dtype']!r} is no type such as 'bfloat16'") from error
    return model(**values)
