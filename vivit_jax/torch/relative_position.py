"""Positions of tokens behind a class token: by their distances, or by a table for the clip."""

import math

import torch
from torch import nn

from vivit_jax.layers.clusters import count_clusters, pair_clusters


class RelativePosition(nn.Module):
    """The terms `(q_i · R^K[:, I(i, j)] + k_j · R^Q[:, I(j, i)]) / √d_head` of the logits.

    I is the cluster of a pair of tokens, see `pair_clusters`. The tables start at zero.

    Source: the thesis on RPE-STDT, equations 3.6 to 3.11; iRPE (arXiv 2107.14222).

    Args:
        grid: places of the tokens after the class token, along each axis.
        num_heads, head_dim: of the attention.
        ratio, function, method: of `pair_clusters`.
        terms: `'both'`, `'query'`, the one with R^K alone, or `'key'`, the one with R^Q.
        shared_heads: whether the heads have one pair of tables, else one each.
    """

    def __init__(
        self,
        grid: tuple[int, ...],
        num_heads: int,
        head_dim: int,
        *,
        ratio: float = 1.5,
        function: str = 'sectioned',
        method: str = 'product',
        terms: str = 'both',
        shared_heads: bool = True,
    ):
        super().__init__()
        clusters = torch.from_numpy(pair_clusters(grid, ratio, function, method)).long()
        self.register_buffer('clusters', clusters, persistent=False)
        shape = 1 if shared_heads else num_heads, head_dim, count_clusters(grid, ratio, method)
        for name, skipped in (('key_table', 'key'), ('query_table', 'query')):
            table = None if terms == skipped else nn.Parameter(torch.zeros(shape))
            self.register_parameter(name, table)

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, places: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Logits [b k q n].

        Args:
            query, key: [b k n d].
            places: int [b n], the tokens of the whole sequence, class token included, that these
                are; None: all in order.
        """
        clusters = self.clusters
        if places is not None:
            clusters = clusters[places[:, :, None], places[:, None, :]][:, None]
        logits = 0
        if self.key_table is not None:
            logits = logits + _of_pairs(query, self.key_table, clusters)
        if self.query_table is not None:
            logits = logits + _of_pairs(key, self.query_table, clusters).mT
        return logits


class ClipPositionEmbedding(nn.Module):
    """Adds learned positions to frames [b t 1+n d] whose first token is a class token.

    The table [1 1+t·n d] has one row for all the class tokens, then one for every other token of
    the clip.
    """

    def __init__(self, grid: tuple[int, int, int], width: int):
        super().__init__()
        self.time = grid[0]
        self.table = nn.Parameter(torch.empty(1, 1 + math.prod(grid), width))
        nn.init.normal_(self.table, std=0.02)  # from BERT

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        for_class = self.table[:, :1].expand(self.time, -1, -1)
        for_places = self.table[0, 1:].unflatten(0, (self.time, -1))
        return tokens + torch.cat([for_class, for_places], dim=1)


def _of_pairs(x: torch.Tensor, table: torch.Tensor, clusters: torch.Tensor) -> torch.Tensor:
    """Products of [b k n d] and a table [k d c], for the clusters [n m] or [b 1 n m]: [b k n m]."""
    # First with every cluster, then with that of every token: never [n n d].
    products = x * x.shape[-1] ** -0.5 @ table
    return products.gather(-1, clusters.expand(*x.shape[:2], *clusters.shape[-2:]))
