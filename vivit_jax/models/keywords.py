"""Keywords of a model: presets, defaults and checks, without JAX."""

from collections.abc import Mapping

from vivit_jax.errors import near_words
from vivit_jax.models.sizes import parse_size

_CHOICES = {
    'tokenizer': ('tubelet', 'uniform_frames'),
    'pool': ('cls', 'mean'),
    'position': ('learned', 'sincos3d', 'none'),
    'attention_order': ('space_time', 'time_space'),
    'gelu': ('tanh', 'exact'),
}


def resolve_keywords(
    name: str,
    defaults: Mapping[str, object],
    size: str | None,
    keywords: Mapping[str, object],
    choices: Mapping[str, tuple[str, ...]],
    presets: Mapping[str, Mapping[str, object]],
) -> dict[str, object]:
    """Completes the keywords of a model.

    Args:
        name: of the model.
        defaults: of all its keywords.
        size: `'B/16x2'` style preset, one of `presets`, or None; wins over the defaults.
        keywords: what was given; wins over both.
        choices: of keywords with other choices than usual.
        presets: the model's own.

    Returns:
        A value for each of `defaults`.

    Raises:
        ValueError: unknown keyword or choice, or sizes that do not fit each other.
    """
    for keyword in keywords:
        if keyword not in defaults:
            raise ValueError(f'{name} has no keyword {keyword!r}{near_words(keyword, defaults)}')
    preset = find_preset(size, presets) if size else {}
    preset = {keyword: preset[keyword] for keyword in preset.keys() & defaults.keys()}
    if keywords.get('tokenizer') == 'uniform_frames':
        patch = preset.get('tubelet_size', defaults['tubelet_size'])[1:]
        preset['tubelet_size'] = (1, *patch)  # the kernel of a frame has no time axis
    values = {**defaults, **preset, **keywords}
    for keyword, default in defaults.items():
        if isinstance(default, tuple):
            values[keyword] = tuple(values[keyword])
    _validate(values, {**_CHOICES, **choices})
    shares_heads = name == 'vivit_fdp' or values.get('factorization') == 'dot_product'
    if shares_heads and values['num_heads'] % 2:
        raise ValueError(
            f'num_heads={values["num_heads"]} must be even: half of the heads of {name} attend '
            'along time, the other half along space'
        )
    return values


def find_preset(size: str, presets: Mapping[str, Mapping[str, object]]) -> Mapping[str, object]:
    """Keywords of a size: one of a model's own presets, or as `parse_size`.

    Raises:
        ValueError: it is neither.
    """
    if size in presets:
        return presets[size]
    try:
        return parse_size(size)
    except ValueError as error:
        if presets:
            raise ValueError(f'{error}, and none of {", ".join(presets)}') from None
        raise


def _validate(values: dict[str, object], choices: Mapping[str, tuple[str, ...]]):
    for keyword in values.keys() & choices.keys():
        if values[keyword] not in choices[keyword]:
            raise ValueError(f'{keyword}={values[keyword]!r} must be one of {choices[keyword]}')
    classes = values['num_classes']
    counts = classes.values() if isinstance(classes, Mapping) else (classes,)
    if not counts or min(counts) < 1:
        raise ValueError(f'num_classes={classes} must be at least 1, for one head or more')
    for keyword in ('hidden_size', 'num_heads', 'mlp_dim', 'num_sampled_frames'):
        if values.get(keyword, 1) < 1:
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
    if values.get('tokenizer') == 'uniform_frames' and values['tubelet_size'][0] != 1:
        raise ValueError(
            f"tokenizer='uniform_frames' embeds single frames, so tubelet_size="
            f'{values["tubelet_size"]} must have t=1'
        )
    for rate in ('dropout_rate', 'attention_dropout_rate', 'drop_path_rate'):
        if not 0 <= values[rate] < 1:
            raise ValueError(f'{rate}={values[rate]} must lie in [0, 1)')
