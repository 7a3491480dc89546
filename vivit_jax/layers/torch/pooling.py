"""`vivit_jax.layers.pooling` in PyTorch."""

import torch
from torch import nn

from vivit_jax.layers.grid import cell_weights, half_weights
from vivit_jax.layers.specification import TransformerSpecification
from vivit_jax.layers.torch.tokens import linear


class AttentionPool(nn.Module):
    """A learned query for each head, which attends to all tokens of all time indices.

    Args:
        spec: sizes.
        time: number of time indices.
    """

    def __init__(self, spec: TransformerSpecification, time: int):
        super().__init__()
        width, self.num_heads = spec.hidden_size, spec.num_heads
        self.norm = nn.LayerNorm(width, spec.layer_norm_eps, elementwise_affine=False)
        self.queries = nn.Parameter(torch.zeros(self.num_heads, width))
        self.time_bias = nn.Parameter(torch.randn(self.num_heads, time))
        self.value = linear(width, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Maps tokens [b t n d] to features [b d]."""
        tokens = self.norm(tokens)
        scores = torch.einsum('btnd,kd->bktn', tokens, self.queries) / tokens.shape[-1] ** 0.5
        scores = scores + self.time_bias[:, :, None]
        weights = scores.flatten(2).softmax(-1).reshape(scores.shape)
        taken = torch.einsum('bktn,btnd->bkd', weights, tokens)
        kernel = self.value.weight.reshape(self.num_heads, -1, tokens.shape[-1])
        return torch.einsum('bkd,ked->bke', taken, kernel).flatten(1) + self.value.bias


def pool_changes(tokens: torch.Tensor, space: tuple[int, int]) -> torch.Tensor:
    """Maps tokens [b t n d] to [b 3·cells·d], how much they change in each cell of the frame."""
    weights = torch.from_numpy(cell_weights(*space)).to(tokens)
    cells = torch.einsum('btnd,cn->btcd', tokens, weights)
    squares = (cells[:, 1:] - cells[:, :-1]).square()
    halves = torch.from_numpy(half_weights(squares.shape[1])).to(tokens)
    squares = torch.einsum('btcd,pt->bpcd', squares, halves)
    return (squares + 1e-6).sqrt().flatten(1)
