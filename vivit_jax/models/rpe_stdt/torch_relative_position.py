"""Attention logits that depend on the distance between tokens, in PyTorch."""

import torch
from torch import nn

from vivit_jax.models.rpe_stdt.clusters import count_clusters, pair_clusters


class RelativePosition(nn.Module):
    """The terms `(q_i · R^K[:, I(i, j)] + k_j · R^Q[:, I(j, i)]) / √d_head` of the logits.

    I is the cluster of a pair of tokens, see `pair_clusters`. The tables start at zero.

    Source: Yujun Ma, Deep learning for action recognition in videos (PhD thesis, Massey University,
    2024), equations 3.6 to 3.11; contextual mode on queries and keys of iRPE (arXiv 2107.14222).

    Args:
        grid: the number of places along each axis of the tokens after the class token.
        num_heads, head_dim: sizes of the attention.
        ratio, function, method: see `pair_clusters`.
        terms: `'both'`, `'query'`, only the term with R^K, or `'key'`, only the term with R^Q.
        shared_heads: whether all heads share one pair of tables; else each head has its own pair.
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
            places: int [b n], the positions of the n tokens in the whole sequence, in which the
                class token has position 0; None: the n tokens are the whole sequence.
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
    # One product for each token and cluster, from which pairs of tokens pick theirs, so that there
    # is never an array [n n d].
    products = x * x.shape[-1] ** -0.5 @ table
    return products.gather(-1, clusters.expand(*x.shape[:2], *clusters.shape[-2:]))
