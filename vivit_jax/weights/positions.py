"""Resizes learned position tables to other grids."""

import math
from collections.abc import Collection, Mapping
from typing import Literal, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vivit_jax.errors import UserError

_TABLE = 'posembed_input/pos_embedding'

PositionResize = Literal['linear', 'bicubic', 'antialiased bicubic']


def resize_positions(
    table: jax.Array,
    old_grid: tuple[int, ...],
    new_grid: tuple[int, ...],
    num_class_tokens: int = 0,
    position_resize: PositionResize = 'linear',
) -> jax.Array:
    """Interpolates a position table along each axis of its grid.

    Both grids cover the same picture, whatever their sizes: a row stands for the center of its
    patch. An axis that keeps its size is not touched; for an unchanged grid the result has the same
    bits.

    >>> resize_positions(np.zeros((1, 197, 768)), (14, 14), (8, 16, 16), 1).shape
    (1, 2049, 768)

    Args:
        table: [1 n d], first the rows of the class tokens, then the grid in row-major order.
        old_grid: the number of places in the table along each axis, (h, w) or (t, h, w).
        new_grid: the number of places to make. It may have more axes in front than `old_grid`, as
            when the table of an image becomes the table of a clip: values repeat along them.
        num_class_tokens: the number of rows without a place; they stay as they are.
        position_resize: how to interpolate. `'linear'`: between two rows; along an axis that
            shrinks, the kernel widens, so that every old row counts (antialiasing).
            `'antialiased bicubic'`, as timm's `resample_abs_pos_embed`: with the cubic kernel of
            a = -0.5, which widens too. `'bicubic'`, as `interpolate_pos_encoding` of Hugging Face:
            between four rows, with the kernel of a = -0.75, which never widens. The kernel is
            Keys', "Cubic convolution interpolation for digital image processing" (1981), eq. 4.
            Beyond the outermost centers, `'bicubic'` repeats the outermost row, and the others
            leave the kernel's part there out.

    Returns:
        [1 n' d].

    Raises:
        UserError: the table does not have the rows of `old_grid` and the class tokens, or
            `position_resize` is unknown.
    """
    if position_resize not in get_args(PositionResize):
        raise UserError(
            f'position_resize={position_resize!r} must be one of {get_args(PositionResize)}'
        )
    rows, width = table.shape[1:]
    if rows != num_class_tokens + math.prod(old_grid):
        raise UserError(
            f'a position table of {rows} rows does not belong to {num_class_tokens} class tokens '
            f'and a grid of {format_grid(old_grid)}: give the grid that it was trained with'
        )
    num_added = len(new_grid) - len(old_grid)
    places = table[:, num_class_tokens:].reshape(*old_grid, width)
    if position_resize == 'bicubic':
        for axis, sizes in enumerate(zip(old_grid, new_grid[num_added:], strict=True)):
            if sizes[0] != sizes[1]:
                weights = _bicubic_weights(*sizes)
                places = jnp.tensordot(weights, places, (1, axis), precision='highest')
                places = jnp.moveaxis(places, 0, axis)
    else:
        method = 'linear' if position_resize == 'linear' else 'cubic'
        places = jax.image.resize(places, (*new_grid[num_added:], width), method, antialias=True)
    places = jnp.broadcast_to(places, (*new_grid, width)).reshape(1, -1, width)
    return jnp.concatenate([table[:, :num_class_tokens], places], axis=1)


def _bicubic_weights(old_size: int, new_size: int) -> np.ndarray:
    """The weight of each old row in each new row: float32 [new_size old_size]."""
    a = -0.75
    centers = (np.arange(new_size) + 0.5) * old_size / new_size - 0.5
    weights = np.zeros((new_size, old_size), np.float32)
    for offset in range(-1, 3):
        neighbors = np.floor(centers) + offset
        x = np.abs(centers - neighbors)
        near = (a + 2) * x**3 - (a + 3) * x**2 + 1
        far = a * (x**3 - 5 * x**2 + 8 * x - 4)
        rows = np.clip(neighbors, 0, old_size - 1).astype(int)
        np.add.at(weights, (np.arange(new_size), rows), np.where(x <= 1, near, far))
    return weights


def format_grid(grid: tuple[int, ...]) -> str:
    """Writes a grid as text, such as `'14x14'`."""
    return 'x'.join(map(str, grid))


def fit_positions(
    table: jax.Array,
    num_class_tokens: int,
    old_grid: tuple[int, ...],
    fresh: jax.Array,
    new_grid: tuple[int, ...],
    position_resize: PositionResize,
) -> tuple[jax.Array, tuple[str, str]]:
    """Makes a table fit the rows of a fresh table: resizes the grid, adds or drops the class token.

    Returns:
        A table [1 n d] in the shape of `fresh`, whose row for the class token is used if `table`
        has none; and status and detail for a report. If the widths differ, `table` as it is.
    """
    if table.shape[-1] != fresh.shape[-1]:
        return table, ('misfit', '')  # the report lists all misfits together
    table = resize_positions(table, old_grid, new_grid, num_class_tokens, position_resize)
    num_new = fresh.shape[1] - math.prod(new_grid)
    details, status = [], 'copied'
    if new_grid != old_grid:
        details.append(f'grid {format_grid(old_grid)} -> {format_grid(new_grid)}')
    if new_grid[-len(old_grid) :] != old_grid:
        status = 'resized'
        details.append(position_resize)
    elif len(new_grid) > len(old_grid):
        status = 'inflated'
    if num_new < num_class_tokens:
        table = table[:, 1:]
        details.append('row of the class token left out')
    elif num_new > num_class_tokens:
        table = jnp.concatenate([fresh[:, :1], table], axis=1)
        details.append('row of the class token new')
    return table, (status, ', '.join(details))


def count_class_tokens(names: Collection[str]) -> int:
    """1 if a model has class tokens, by the names of its parameters, else 0."""
    return int(any(name.startswith('cls') for name in names))


def table_places(name: str, grid: tuple[int, ...]) -> tuple[int, ...]:
    """The number of places of a position table along each axis.

    Args:
        name: the name of the table; it tells whether a spatial, a temporal or a joint encoder
            uses the table.
        grid: tokens of the clip, (t, h, w), or of the image, (h, w).
    """
    if name.startswith('SpatialTransformer/'):
        return grid[-2:]
    return grid[:1] if name.startswith('TemporalTransformer/') else grid


def position_grids(
    model: nn.Module, target: Mapping[str, jax.Array], clip_shape: tuple[int, int, int]
) -> dict[str, tuple[int, ...]]:
    """The number of places of each learned position table of a model, along each axis.

    Args:
        model: a model whose tokens lie on a grid.
        target: the model's parameters, by path with slashes.
        clip_shape: (t, h, w) in frames and pixels.

    Raises:
        ValueError: the clip does not divide into tubelets, or a table has another number of rows
            than the clip needs.
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


def make_square(
    params: dict[str, np.ndarray],
    name: str,
    grid: tuple[int, int, int],
    side: int,
    notes: list[str],
    position_resize: PositionResize = 'linear',
) -> tuple[int, int, int]:
    """Resizes positions in space to a square, which all clips here are.

    Args:
        params: parameters by path with slashes, of which the position table is replaced.
        name: the name of the table.
        grid: the places of the table along time, height and width.
        side: places along each side of the square; 0: about as many places as before.
        notes: gets a line that tells the change.
        position_resize: see `resize_positions`.

    Returns:
        The new grid.
    """
    side = side or round(math.sqrt(grid[1] * grid[2]))
    square = (grid[0], side, side)
    places = (table_places(name, grid), table_places(name, square))
    resized = resize_positions(params[name], *places, count_class_tokens(params), position_resize)
    params[name] = np.asarray(resized)
    notes.append(f'positions resized from a grid of {format_grid(grid)} to {format_grid(square)}')
    return square
