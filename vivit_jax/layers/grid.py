"""The grid of tokens and the places on it, in NumPy: what every implementation shares."""

import numpy as np


def token_grid(
    clip_shape: tuple[int, int, int],
    tubelet_size: tuple[int, int, int],
    tokenizer: str,
    num_sampled_frames: int,
) -> tuple[int, int, int]:
    """Tokens along time, height and width of a clip of (t, h, w) frames and pixels.

    Raises:
        ValueError: the clip does not divide into whole patches.
    """
    names = ('frames', 'height', 'width')
    for name, size, part in zip(names, clip_shape, tubelet_size, strict=True):
        if size % part:
            raise ValueError(
                f'a clip with {name}={size} does not divide into tubelets of '
                f'(t, h, w)={tuple(tubelet_size)}: choose {name} as a multiple of {part}'
            )
    frames, height, width = clip_shape
    if tokenizer == 'uniform_frames':
        frames = len(uniform_frame_indices(frames, num_sampled_frames))
    time_patch, *patch = tubelet_size
    return frames // time_patch, height // patch[0], width // patch[1]


def uniform_frame_indices(num_frames: int, num_sampled_frames: int) -> np.ndarray:
    """Frames `round(i * num_frames / (n + 1))` for i = 1 … n, halves rounded to even.

    All frames when as many as there are, or more, are asked for.
    """
    if num_sampled_frames >= num_frames:
        return np.arange(num_frames)
    steps = np.arange(1, num_sampled_frames + 1)
    return np.round(steps * num_frames / (num_sampled_frames + 1)).astype(int)


def sincos_positions(grid: tuple[int, ...], width: int) -> np.ndarray:
    """Sines and cosines of the places of a grid, float32 [prod(grid) width].

    Every axis longer than one place gets an equal, even share of the channels; those that remain
    are zero. Channel i of m pairs has the wavelength 2π · 10000^(i/m).

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
