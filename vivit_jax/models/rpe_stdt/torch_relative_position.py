"""Attention logits that depend on how far tokens are apart, in PyTorch."""

import torch
from torch import nn

from vivit_jax.models.rpe_stdt.clusters import count_clusters, pair_clusters


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


def _of_pairs(x: torch.Tensor, table: torch.Tensor, clusters: torch.Tensor) -> torch.Tensor:
    """Products of [b k n d] and a table [k d c], for the clusters [n m] or [b 1 n m]: [b k n m]."""
    # First with every cluster, then with that of every token: never [n n d].
    products = x * x.shape[-1] ** -0.5 @ table
    return products.gather(-1, clusters.expand(*x.shape[:2], *clusters.shape[-2:]))
