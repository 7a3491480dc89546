"""Model names and how a model is made from one."""

import inspect

from torch import nn

from vivit_jax.errors import near_words
from vivit_jax.models.keywords import resolve_keywords
from vivit_jax.torch import vivit
from vivit_jax.torch.convivit import ConViViT
from vivit_jax.torch.ctn import Ctn
from vivit_jax.torch.rpe_stdt import RpeStdt

MODELS = {
    'vivit_joint': vivit.Joint,
    'vivit_fe': vivit.FactorizedEncoder,
    'vivit_fsa': vivit.FactorizedSelfAttention,
    'vivit_fdp': vivit.FactorizedDotProduct,
    'convivit': ConViViT,
    'rpe_stdt': RpeStdt,
    'ctn': Ctn,
}

# Keywords of the JAX models that say how they are computed, not what: accepted and not used.
JAX_KEYWORDS = ('attention_implementation', 'remat', 'scan_layers', 'dtype')


def list_models() -> list[str]:
    """Names that `create_model` takes."""
    return list(MODELS)


def model_keywords(name: str) -> dict[str, object]:
    """Every keyword of a model that says what it computes, with its default.

    Raises:
        ValueError: unknown model; the message offers the near names.
    """
    if name not in MODELS:
        raise ValueError(f'unknown model {name!r}{near_words(name, MODELS)}')
    return {
        parameter.name: parameter.default
        for ancestor in reversed(MODELS[name].__mro__)
        for parameter in inspect.signature(ancestor).parameters.values()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }


def create_model(
    name: str, size: str | None = None, *, clip_shape: tuple[int, int, int], **keywords
) -> nn.Module:
    """Makes a model with fresh parameters, distributed as those of the JAX models.

    >>> model = create_model('vivit_fe', size='S/16x2', clip_shape=(32, 224, 224), num_classes=51)

    Args:
        name: one of `list_models()`.
        size: `'B/16x2'` style preset, or one of the model's own `PRESETS`; explicit keywords win.
        clip_shape: (t, h, w) of the clips in frames and pixels.
        **keywords: those of `vivit_jax.create_model`; `JAX_KEYWORDS` have no effect.

    Raises:
        ValueError: unknown name, keyword or choice, or sizes that do not fit each other.
    """
    defaults = {**dict.fromkeys(JAX_KEYWORDS), **model_keywords(name)}
    model = MODELS[name]
    values = resolve_keywords(name, defaults, size, keywords, model.CHOICES, model.PRESETS)
    model.check(values)
    return model(clip_shape, **{key: values[key] for key in values if key not in JAX_KEYWORDS})
