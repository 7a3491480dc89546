"""Parameters of one model from those of another."""

import math
import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from vivit_jax.layers.tokenizers import Tokenizer
from vivit_jax.models.vivit import ViViT
from vivit_jax.weights.report import Entry


def copy_parameters(
    target: dict[str, jax.Array],
    source: dict[str, jax.Array],
    rules: tuple[tuple[str, str], ...],
    changes: dict[str, tuple[str, str]],
) -> tuple[dict[str, jax.Array], list[Entry]]:
    """Fills flat parameters from others.

    Args:
        target: freshly initialized, or only their shapes, by path with slashes; not modified.
        source: likewise, of any float type.
        rules: pattern of a name in the target and what it starts from in the source; the first
            full match counts.
        changes: status and detail of what is not simply copied (by name in the source) or new (by
            name in the target).

    Returns:
        The target with what it finds in the source, in its own types and memory (a shape becomes
        the source itself), and an entry for each parameter of the target and for each of the source
        that was not used.
    """
    result, entries = dict(target), []
    for name, fresh in target.items():
        origin = _find_source(name, rules)
        if origin not in source:
            status, detail = changes.get(name, ('new', ''))
            entries.append(Entry(status, name, detail=detail))
            continue
        value = source[origin]
        status, detail = changes.get(origin, ('copied', ''))
        if value.shape == fresh.shape:
            is_shape = isinstance(fresh, jax.ShapeDtypeStruct)
            result[name] = value if is_shape else jnp.array(value, fresh.dtype)
        else:
            status, detail = 'misfit', f'{value.shape}, needed {fresh.shape}'
        entries.append(Entry(status, name, origin, detail))
    used = {entry.source for entry in entries}
    entries += [Entry('unused', name) for name in source if name not in used]
    return result, entries


def position_grids(
    model: ViViT, target: Mapping[str, jax.Array], clip_shape: tuple[int, int, int]
) -> dict[str, tuple[int, ...]]:
    """The places of each learned position table among flat parameters, along each axis.

    Args:
        model: one of the four ViViTs.
        target: its parameters by path with slashes.
        clip_shape: (t, h, w) in frames and pixels.

    Raises:
        ValueError: the clip does not divide into tubelets, or has other tokens than a table.
    """
    tokenizer = Tokenizer(
        model.hidden_size, model.tubelet_size, model.tokenizer, model.num_sampled_frames
    )
    clip = jax.ShapeDtypeStruct((1, *clip_shape, 3), jnp.float32)
    tokens, _ = jax.eval_shape(tokenizer.init_with_output, jax.random.key(0), clip)
    grid = tokens.shape[1:4]
    grids = {'Transformer': grid, 'SpatialTransformer': grid[1:], 'TemporalTransformer': grid[:1]}
    found = {}
    for encoder, places in grids.items():
        name = f'{encoder}/posembed_input/pos_embedding'
        if name in target:
            num_rows = int(model.pool == 'cls') + math.prod(places)
            if target[name].shape[1] != num_rows:
                raise ValueError(
                    f'{name} has {target[name].shape[1]} rows, but a clip of {clip_shape} needs '
                    f'{num_rows}: initialize params with such a clip'
                )
            found[name] = places
    return found


def _find_source(name: str, rules: tuple[tuple[str, str], ...]) -> str | None:
    for pattern, source in rules:
        if match := re.fullmatch(pattern, name):
            return match.expand(source)
    return None
