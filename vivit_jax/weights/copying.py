"""Copies parameters from one model to another."""

import re
from collections.abc import Mapping

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp

from vivit_jax.weights.copy_rules import FRESH, ZERO, Rules
from vivit_jax.weights.positions import (
    PositionResize,
    count_class_tokens,
    fit_positions,
    position_grids,
    table_places,
)
from vivit_jax.weights.report import Entry, Report
from vivit_jax.weights.tubelets import fit_kernel, is_of_frames, sums_colours


def copy_parameters(
    model: nn.Module,
    target: Mapping[str, jax.Array],
    source: Mapping[str, jax.Array],
    rules: Rules,
    *,
    clip_shape: tuple[int, int, int],
    grid: tuple[int, ...],
    tubelet_init: str = 'central_frame',
    unused: tuple[str, ...] = (),
    position_resize: PositionResize = 'linear',
) -> tuple[dict, Report]:
    """Fills the parameters of a model from other weights; resizes positions and tubelets to fit.

    If the target reads one channel of depth, kernels that read colours are summed over them.

    Args:
        model: the model whose parameters are filled.
        target: the model's parameters, flat, by path with slashes: fresh values, or only shapes.
            Not modified.
        source: the parameters to copy, flat, by path with slashes, of any float type.
        rules: which parameter each target parameter starts from. A target parameter that no rule
            matches is an error.
        clip_shape: (t, h, w) of the target's clips in frames and pixels.
        grid: tokens of the source, (t, h, w), or (h, w) for an image model.
        tubelet_init: see `init_from_image_vit`.
        unused: shell-style patterns of names in the source that need not be used. Parameters that
            the rules declare fresh need not be used either.
        position_resize: how positions are interpolated, see `resize_positions`.

    Returns:
        The tree of the target with the copied values, in the target's types and in new memory (if
        the target is only a shape, the source array itself); and a report with an entry for each
        target parameter and each unused source parameter.

    Raises:
        UserError: a parameter does not fit, is new without a rule, or is unused.
        ValueError: the target is not made for clips of `clip_shape`.
    """
    places = position_grids(model, target, clip_shape)
    result, entries, fresh_names = dict(target), [], []
    for name, fresh in target.items():
        origin = _find_source(name, rules)
        if origin in (FRESH, ZERO):
            fresh_names.append(name)
        if origin == ZERO:
            result[name] = jnp.zeros_like(fresh)
        if origin not in source:
            entries.append(Entry('new', name, detail='zero' if origin == ZERO else ''))
            continue
        value, status, detail = source[origin], 'copied', ''
        has_one_channel = model.spec.num_channels == 1 and name.endswith('/kernel')
        is_summed = has_one_channel and sums_colours(value, fresh)
        if is_summed:  # the same function of a clip whose colours are equal
            value = jnp.asarray(value, jnp.float32).sum(-2, keepdims=True)
        if name in places:
            value, (status, detail) = fit_positions(
                jnp.asarray(value, jnp.float32),
                count_class_tokens(source),
                table_places(origin, grid),
                fresh,
                places[name],
                position_resize,
            )
        elif name == 'embedding/kernel':
            value, (status, detail) = fit_kernel(value, fresh, tubelet_init)
        elif is_of_frames(value, fresh):
            value, (status, detail) = fit_kernel(value[0], fresh, tubelet_init)
        if is_summed:
            detail = ', '.join(filter(None, (detail, 'summed over colours')))
        if value.shape == fresh.shape:
            is_shape = isinstance(fresh, jax.ShapeDtypeStruct)
            result[name] = value if is_shape else jnp.array(value, fresh.dtype)
        else:
            status, detail = 'misfit', f'{value.shape}, needed {fresh.shape}'
        entries.append(Entry(status, name, origin, detail))
    used = {entry.source for entry in entries}
    entries += [Entry('unused', name) for name in source if name not in used]
    report = Report(tuple(entries))
    report.check(new=tuple(fresh_names), unused=(*unused, *fresh_names))
    return flax.traverse_util.unflatten_dict(result, sep='/'), report


def _find_source(name: str, rules: Rules) -> str | None:
    for pattern, source in rules:
        if match := re.fullmatch(pattern, name):
            return match.expand(source)
    return None
