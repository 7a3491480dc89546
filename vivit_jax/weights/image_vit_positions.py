"""The position tables of image ViTs: their grids, and rows for the class token."""

import math
from collections.abc import Mapping

import numpy as np

from vivit_jax.weights.imagenet_layouts import TABLE, Layout
from vivit_jax.weights.positions import format_grid, make_square

_USUAL_SIDE = 224  # pixels of an image's side, if a file does not tell


def complete_positions(
    params: dict[str, np.ndarray], patch: int, layout: Layout, config: Mapping, notes: list[str]
) -> int:
    """Makes the position table that of a square, with a row for the class token if there is one.

    Args:
        params: parameters by path with slashes; the table [1 n d] in them is replaced. If it is
            missing, fixed sines and cosines take its place.
        patch: pixels along each side of a patch.
        layout: the layout of the file.
        config: fields of the configuration beside the file.
        notes: assumptions, to which this function adds.

    Returns:
        The number of places along each side of the square.

    Raises:
        ValueError: the table has the rows neither of a square nor of the grid in `config`.
    """
    has_class_token = 'cls' in params
    if TABLE not in params:
        side = _USUAL_SIDE // patch
        params[TABLE] = _sincos_table(side, params['embedding/kernel'].shape[-1])
        notes.append(f'fixed 2-D sines and cosines as positions, for {_USUAL_SIDE} pixels')
        grid, has_row = (side, side), False
    else:
        may_lack_row = has_class_token and not layout.has_class_row
        grid, has_row = _find_grid(
            params[TABLE].shape[1],
            [True, False] if may_lack_row else [has_class_token],
            _told_grid(config, patch),
            notes,
        )
    if has_class_token and not has_row:
        # timm's no_embed_class, and big_vision, which adds positions before the class token.
        params[TABLE] = np.pad(params[TABLE], ((0, 0), (1, 0), (0, 0)))
    if grid[0] != grid[1]:
        grid = make_square(params, TABLE, (1, *grid), 0, notes, layout.position_resize)
    return grid[-1]


def _told_grid(config: Mapping, patch: int) -> tuple[int, ...]:
    """The grid (h, w) of the images that a configuration tells; empty if it tells none."""
    size = config.get('image_size') or ()
    return tuple(side // patch for side in ((size, size) if isinstance(size, int) else size))


def _find_grid(
    rows: int, may_have_row: list[bool], told: tuple[int, ...], notes: list[str]
) -> tuple[tuple[int, ...], bool]:
    """The grid (h, w) of a table, and whether it has a row for the class token.

    Args:
        rows: the rows of the table.
        may_have_row: whether the table may have a row for the class token, likeliest first.
        told: the grid that the configuration tells, or nothing.
        notes: assumptions, to which this function adds.

    Raises:
        ValueError: the rows are neither those of `told` nor those of a square.
    """
    for has_row in may_have_row:
        if told and math.prod(told) + has_row == rows:
            return told, has_row
    for has_row in may_have_row:
        side = math.isqrt(max(0, rows - has_row))
        if side and side**2 + has_row == rows:
            if told:
                notes.append(
                    f'config.json tells images of {format_grid(told)} patches, but the position '
                    f'table has {rows} rows: {side}x{side} assumed'
                )
            elif has_row != may_have_row[0]:
                notes.append(
                    f'a position table of {side}x{side} places, without the class token, assumed'
                )
            return (side, side), has_row
    raise ValueError(
        f'{TABLE}: {rows - may_have_row[0]} places of patches, which form no square; if they form '
        'a rectangle, a config.json with "image_size": [height, width] beside the file tells it'
    )


def _sincos_table(side: int, width: int) -> np.ndarray:
    """Sines and cosines of columns, then of rows, [1 n d], as in big_vision and MoCo v3.

    Raises:
        ValueError: `side` is 0, or `width` is less than 8 or no multiple of 4.
    """
    if side < 1 or width % 4 or width < 8:
        raise ValueError(f'missing, and there are no sines and cosines of width {width} for it')
    frequencies = 10000.0 ** -np.linspace(0, 1, width // 4)
    rows, columns = (np.outer(x.ravel(), frequencies) for x in np.indices((side, side)))
    table = np.concatenate([np.sin(columns), np.cos(columns), np.sin(rows), np.cos(rows)], axis=1)
    return table.astype(np.float32)[None]
