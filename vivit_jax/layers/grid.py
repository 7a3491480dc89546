"""Places on the grid of tokens, in NumPy, for JAX and PyTorch."""

import numpy as np

_MOST_CELLS = 6  # along an axis of the frame


def uniform_frame_indices(num_frames: int, num_sampled_frames: int) -> np.ndarray:
    """Frames `round(i * num_frames / (n + 1))` for i = 1 … n, halves rounded to even.

    If n is at least `num_frames`, all frames.
    """
    if num_sampled_frames >= num_frames:
        return np.arange(num_frames)
    steps = np.arange(1, num_sampled_frames + 1)
    return np.round(steps * num_frames / (num_sampled_frames + 1)).astype(int)


def sincos_positions(grid: tuple[int, ...], width: int) -> np.ndarray:
    """Sines and cosines of the places of a grid, float32 [prod(grid) width].

    Every axis with more than one place gets the same even number of channels; the channels that
    remain are zero. Channel i of m pairs has the wavelength 2π · 10000^(i/m).

    Source: Attention Is All You Need (arXiv 1706.03762), section 3.5, for each axis.
    """
    axes = [axis for axis, size in enumerate(grid) if size > 1]
    table = np.zeros((*grid, width), np.float32)
    pairs = width // (2 * max(len(axes), 1))
    frequencies = 10000.0 ** -(np.arange(pairs) / max(pairs, 1))
    for share, axis in enumerate(axes):
        shape = [-1 if a == axis else 1 for a in range(len(grid))]
        angles = np.arange(grid[axis]).reshape(*shape, 1) * frequencies
        start = 2 * pairs * share
        table[..., start : start + pairs] = np.sin(angles)
        table[..., start + pairs : start + 2 * pairs] = np.cos(angles)
    return table.reshape(-1, width)


def sincos_sequence(length: int, width: int) -> np.ndarray:
    """Sines, in even channels, and cosines of the places of a sequence, float32 [length width].

    `sin(p / 10000^(2i/d))` in channel 2i and `cos(p / 10000^(2i/d))` in channel 2i + 1.

    Source: Attention Is All You Need (arXiv 1706.03762), section 3.5.
    """
    channels = np.arange(width)
    angles = np.arange(length)[:, None] / 10000.0 ** (channels // 2 * 2 / width)
    return np.where(channels % 2, np.cos(angles), np.sin(angles)).astype(np.float32)


def cell_weights(height: int, width: int) -> np.ndarray:
    """Divides a frame of tokens into at most 6x6 cells, which overlap if it does not divide evenly.

    Returns:
        Weights float32 [cells height·width], in the order of rows: each cell is the mean of its
        tokens.
    """
    rows, columns = (_parts_of(length, min(_MOST_CELLS, length)) for length in (height, width))
    return np.einsum('ih,jw->ijhw', rows, columns).reshape(-1, height * width)


def half_weights(length: int) -> np.ndarray:
    """Means over a sequence, its first half and its second half: weights float32 [3 length].

    The halves of an odd length share the middle.
    """
    return np.concatenate([_parts_of(length, 1), _parts_of(length, 2)])


def _parts_of(length: int, count: int) -> np.ndarray:
    """Weights float32 [count length]; part i of n has the places from ⌊i l/n⌋ to ⌈(i+1) l/n⌉."""
    weights = np.zeros((count, length), np.float32)
    for part in range(count):
        places = slice(part * length // count, -((part + 1) * -length // count))
        weights[part, places] = 1 / max(1, places.stop - places.start)
    return weights
