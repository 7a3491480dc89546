"""Model names and how a model is made from one."""

import dataclasses
import difflib
from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp

from vivit_jax.layers.attention_kernels import FUSED, IMPLEMENTATIONS
from vivit_jax.layers.encoder import REMAT_POLICIES
from vivit_jax.models import vivit
from vivit_jax.models.sizes import parse_size

MODELS = {
    'vivit_joint': vivit.Joint,
    'vivit_fe': vivit.FactorizedEncoder,
    'vivit_fsa': vivit.FactorizedSelfAttention,
    'vivit_fdp': vivit.FactorizedDotProduct,
}

_CHOICES = {
    'tokenizer': ('tubelet', 'uniform_frames'),
    'pool': ('cls', 'mean'),
    'position': ('learned', 'sincos3d', 'none'),
    'attention_order': ('space_time', 'time_space'),
    'attention_implementation': IMPLEMENTATIONS,
    'gelu': ('tanh', 'exact'),
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
        raise ValueError(f'unknown model {name!r}{_near(name, MODELS)}')
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
        size: `'B/16x2'` style preset; explicit keywords win over it.
        **keywords: fields of the model's class.

    Raises:
        ValueError: unknown name, keyword or choice, or sizes that do not fit each other.
    """
    known = model_keywords(name)
    for keyword in keywords:
        if keyword not in known:
            raise ValueError(f'{name} has no keyword {keyword!r}{_near(keyword, known)}')
    preset = parse_size(size) if size else {}
    if keywords.get('tokenizer') == 'uniform_frames':
        patch = preset.get('tubelet_size', known['tubelet_size'])[1:]
        preset['tubelet_size'] = (1, *patch)  # the kernel of a frame has no time axis
    values = {**known, **preset, **keywords}
    values['tubelet_size'] = tuple(values['tubelet_size'])
    model = MODELS[name]
    _validate(values, {**_CHOICES, **model.CHOICES})
    if model is vivit.FactorizedDotProduct and values['num_heads'] % 2:
        raise ValueError(
            f'num_heads={values["num_heads"]} must be even: half of the heads of {name} attend '
            'along time, the other half along space'
        )
    return model(**values)


def _validate(values: dict[str, object], choices: Mapping[str, tuple[str, ...]]):
    for keyword in values.keys() & choices.keys():
        if values[keyword] not in choices[keyword]:
            raise ValueError(f'{keyword}={values[keyword]!r} must be one of {choices[keyword]}')
    classes = values['num_classes']
    counts = classes.values() if isinstance(classes, Mapping) else (classes,)
    if not counts or min(counts) < 1:
        raise ValueError(f'num_classes={classes} must be at least 1, for one head or more')
    for keyword in ('hidden_size', 'num_heads', 'mlp_dim', 'num_sampled_frames'):
        if values[keyword] < 1:
            raise ValueError(f'{keyword}={values[keyword]} must be at least 1')
    for keyword in ('num_layers', 'temporal_num_layers'):
        if values.get(keyword, 0) < 0:
            raise ValueError(f'{keyword}={values[keyword]} must not be negative')
    if len(values['tubelet_size']) != 3 or min(values['tubelet_size']) < 1:
        raise ValueError(f'tubelet_size={values["tubelet_size"]} must be (t, h, w), each from 1')
    if values['hidden_size'] % values['num_heads']:
        raise ValueError(
            f'num_heads={values["num_heads"]} must divide hidden_size={values["hidden_size"]}'
        )
    if values['tokenizer'] == 'uniform_frames' and values['tubelet_size'][0] != 1:
        raise ValueError(
            f"tokenizer='uniform_frames' embeds single frames, so tubelet_size="
            f'{values["tubelet_size"]} must have t=1'
        )
    for rate in ('dropout_rate', 'attention_dropout_rate', 'drop_path_rate'):
        if not 0 <= values[rate] < 1:
            raise ValueError(f'{rate}={values[rate]} must lie in [0, 1)')
    if values['attention_dropout_rate'] and values['attention_implementation'] in FUSED:
        raise ValueError(
            f'attention_implementation={values["attention_implementation"]!r} has no dropout: set '
            "attention_dropout_rate to 0, or take 'auto', 'einsum' or 'chunked'"
        )
    try:
        jnp.dtype(values['dtype'])
    except TypeError as error:
        raise ValueError(f"dtype={values['dtype']!r} is no type such as 'bfloat16'") from error


def _near(word: str, known) -> str:
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    return f'; did you mean {" or ".join(map(repr, near))}?' if near else f'; known: {list(known)}'
