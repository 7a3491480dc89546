"""Groups pairs of tokens into clusters by their distance, in NumPy."""

import functools
import math

import numpy as np


def count_clusters(grid: tuple[int, ...], ratio: float, method: str) -> int:
    """The number of clusters that `pair_clusters` makes, including the class token's cluster."""
    axes = len(grid) if method == 'product' else 1
    return (2 * math.floor(2 * ratio) + 1) ** axes + 1


@functools.cache
def pair_clusters(
    grid: tuple[int, ...],
    ratio: float = 1.5,
    function: str = 'sectioned',
    method: str = 'product',
) -> np.ndarray:
    """The cluster of each pair of tokens i, j, by the offset i - j, int32 [1+n 1+n].

    The class token is the first token. All its pairs are in the last cluster.

    Args:
        grid: the number of places of the other tokens along each axis.
        ratio: `b` in `section_offsets`; offsets become numbers of at most `Y = ⌊2b⌋`.
        function: `'sectioned'`, see `section_offsets`, or `'clip'`, which clips offsets to ±Y.
        method: `'product'` numbers each axis, and every combination of numbers is a cluster;
            `'euclidean'` numbers the distance.

    Source: Yujun Ma, Deep learning for action recognition in videos (PhD thesis, Massey University,
    2024), equations 3.8 to 3.11.
    """
    reach = math.floor(2 * ratio)

    def number(offsets: np.ndarray) -> np.ndarray:
        if function == 'clip':
            return np.clip(offsets, -reach, reach)
        return section_offsets(offsets, ratio)

    positions = np.indices(grid).reshape(len(grid), -1)
    offsets = positions[:, :, None] - positions[:, None, :]
    if method == 'euclidean':
        offsets = np.round(np.sqrt((offsets**2).sum(axis=0, keepdims=True))).astype(int)
    clusters = np.zeros(offsets.shape[1:], int)
    for axis in offsets:
        clusters = clusters * (2 * reach + 1) + number(axis) + reach
    last = count_clusters(grid, ratio, method) - 1
    return np.pad(clusters, ((1, 0), (1, 0)), constant_values=last).astype(np.int32)


def section_offsets(offsets: np.ndarray, ratio: float) -> np.ndarray:
    """Turns offsets into numbers: near offsets one by one, far offsets in ever longer sections.

    `s(x) = x` up to `|x| = b`, then `sign(x) · int(min(y, round(b + ln(|x|/b)/ln(a/b) · (y-b))))`,
    with b : y : a = 1 : 2 : 8 and b = `ratio`; halves are rounded to even.

    Source: iRPE (arXiv 2107.14222), the piecewise index function.
    """
    near, most = ratio, 2 * ratio
    distance = np.abs(offsets)
    growth = np.log(np.maximum(distance, near) / near) / np.log(8)
    far = np.minimum(most, np.round(near + growth * (most - near))).astype(int)
    return np.sign(offsets) * np.where(distance <= near, distance, far)
