"""Learned position tables for other grids."""

import math
from collections.abc import Collection, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from vivit_jax.errors import UserError

_TABLE = 'posembed_input/pos_embedding'


def resize_positions(
    table: jax.Array,
    old_grid: tuple[int, ...],
    new_grid: tuple[int, ...],
    num_class_tokens: int = 0,
) -> jax.Array:
    """Interpolates a position table linearly along each axis of its grid.

    A row stands for the middle of a patch, so that places are compared at half-pixel centers: the
    grids cover the same picture, whatever their sizes, and beyond the outermost centers the table
    goes on unchanged. Along an axis that shrinks, the kernel widens with it, so that every old row
    counts; without that some would be skipped. An axis of the same size is not touched, and a
    native grid returns the same bits.

    >>> resize_positions(np.zeros((1, 197, 768)), (14, 14), (8, 16, 16), 1).shape
    (1, 2049, 768)

    Args:
        table: [1 n d], first the rows of the class tokens, then the grid in row-major order.
        old_grid: places of the table along each axis, (h, w) or (t, h, w).
        new_grid: places to make. Axes before those of `old_grid` are added, with the same values
            at each of their places: the table of an image for a clip.
        num_class_tokens: rows that have no place and stay as they are.

    Returns:
        [1 n' d].

    Raises:
        UserError: the rows of the table do not form that grid.
    """
    rows, width = table.shape[1:]
    if rows != num_class_tokens + math.prod(old_grid):
        raise UserError(
            f'a position table of {rows} rows is not that of {num_class_tokens} class tokens and a '
            f'grid of {format_grid(old_grid)}: give the grid that it was trained with'
        )
    num_added = len(new_grid) - len(old_grid)
    places = table[:, num_class_tokens:].reshape(*old_grid, width)
    places = jax.image.resize(places, (*new_grid[num_added:], width), 'linear', antialias=True)
    places = jnp.broadcast_to(places, (*new_grid, width)).reshape(1, -1, width)
    return jnp.concatenate([table[:, :num_class_tokens], places], axis=1)


def format_grid(grid: tuple[int, ...]) -> str:
    """`'14x14'`."""
    return 'x'.join(map(str, grid))


def fit_positions(
    table: jax.Array,
    num_class_tokens: int,
    old_grid: tuple[int, ...],
    fresh: jax.Array,
    new_grid: tuple[int, ...],
) -> tuple[jax.Array, tuple[str, str]]:
    """Resizes a table for the rows and class token of a fresh one.

    Returns:
        [1 n d] of `fresh`, with its own row for a class token that the table lacks; and status and
        detail for a report.
    """
    if table.shape[-1] != fresh.shape[-1]:
        return table, ('misfit', '')  # to be listed with all others
    table = resize_positions(table, old_grid, new_grid, num_class_tokens)
    num_new = fresh.shape[1] - math.prod(new_grid)
    details = []
    if new_grid != old_grid:
        details.append(f'grid {format_grid(old_grid)} -> {format_grid(new_grid)}')
    if num_new < num_class_tokens:
        table = table[:, 1:]
        details.append('row of the class token left out')
    elif num_new > num_class_tokens:
        table = jnp.concatenate([fresh[:, :1], table], axis=1)
        details.append('row of the class token new')
    status = 'copied'
    if new_grid[-len(old_grid) :] != old_grid:
        status = 'resized'
    elif len(new_grid) > len(old_grid):
        status = 'inflated'
    return table, (status, ', '.join(details))


def count_class_tokens(names: Collection[str]) -> int:
    """1 where the encoders of a model have class tokens, by the names of its parameters, or 0."""
    return int(any(name.startswith('cls') for name in names))


def table_places(name: str, grid: tuple[int, ...]) -> tuple[int, ...]:
    """The places of a position table along each axis.

    Args:
        name: of the table, by which a spatial and a temporal encoder have theirs.
        grid: tokens of the clip, (t, h, w); (h, w) of an image.
    """
    if name.startswith('SpatialTransformer/'):
        return grid[-2:]
    return grid[:1] if name.startswith('TemporalTransformer/') else grid


def position_grids(
    model: nn.Module, target: Mapping[str, jax.Array], clip_shape: tuple[int, int, int]
) -> dict[str, tuple[int, ...]]:
    """The places of each learned position table among flat parameters, along each axis.

    Args:
        model: of tokens that lie on a grid.
        target: its parameters by path with slashes.
        clip_shape: (t, h, w) in frames and pixels.

    Raises:
        ValueError: the clip does not divide into tubelets, or has other tokens than a table.
    """
    grid, found = model.spec.grid(clip_shape), {}
    for name in target:
        if name.endswith(_TABLE):
            found[name] = table_places(name, grid)
            num_rows = count_class_tokens(target) + math.prod(found[name])
            if target[name].shape[1] != num_rows:
                raise ValueError(
                    f'{name} has {target[name].shape[1]} rows, but a clip of {clip_shape} needs '
                    f'{num_rows}: initialize params with such a clip'
                )
    return found
