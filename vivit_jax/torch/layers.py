"""The layers of `vivit_jax.layers` in PyTorch: the same computation under the same names.

Tokens are float [b n d], or [b t n d] where attention runs along time and space.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from vivit_jax.layers.grid import sincos_positions, token_grid, uniform_frame_indices

# The axes of each attention of a block, and those axes of tokens [... n d] or [... t n d].
Attentions = tuple[tuple[str, ...], ...]
AXES = {'tokens': -2, 'space': -2, 'time': -3}

NUM_CHANNELS = 3  # red, green, blue


class Tokenizer(nn.Module):
    """Linear projection of non-overlapping patches of a clip.

    With `tokenizer='tubelet'` a patch is (t, h, w) pixels, with `'uniform_frames'` it is (h, w)
    pixels of one of `num_sampled_frames` frames.

    Source: ViViT (arXiv 2103.15691), section 3.2 and figures 2 and 3.
    """

    def __init__(
        self,
        hidden_size: int,
        tubelet_size: tuple[int, int, int],
        tokenizer: str,
        num_sampled_frames: int,
    ):
        super().__init__()
        self.tubelet_size = tubelet_size
        self.tokenizer = tokenizer
        self.num_sampled_frames = num_sampled_frames
        self.projection = _linear(math.prod(tubelet_size) * NUM_CHANNELS, hidden_size)

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        """Maps a float clip [b t h w c] to tokens [b t' h' w' d].

        Raises:
            ValueError: the clip does not divide into whole patches.
        """
        batch, *clip_shape, channels = clip.shape
        time_patch, *patch = self.tubelet_size
        grid = token_grid(clip_shape, self.tubelet_size, self.tokenizer, self.num_sampled_frames)
        if self.tokenizer == 'uniform_frames':
            clip = clip[:, uniform_frame_indices(clip_shape[0], self.num_sampled_frames).tolist()]
        patches = clip.reshape(
            batch, grid[0], time_patch, grid[1], patch[0], grid[2], patch[1], channels
        )
        patches = patches.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(batch, *grid, -1)
        return self.projection(patches)


class PositionEmbedding(nn.Module):
    """Adds positions to tokens [... n d] or [... t n d].

    Args:
        kind: `'learned'`, a table [1 n d] or [1 t·n d], `'sincos3d'`, or `'none'`.
        grid: places of the tokens along each axis.
        width: of the tokens.
        token_axes: how many axes of the tokens have positions: 1 for n, 2 for t and n.
        has_class_token: whether one stands before the others; `'sincos3d'` gives it zero.
    """

    def __init__(
        self, kind: str, grid: tuple[int, ...], width: int, token_axes: int, has_class_token: bool
    ):
        super().__init__()
        self.token_axes = token_axes
        before = int(has_class_token)
        if kind == 'learned':
            self.table = nn.Parameter(torch.empty(1, before + math.prod(grid), width))
            nn.init.normal_(self.table, std=0.02)  # from BERT
        elif kind == 'sincos3d':
            table = np.pad(sincos_positions(grid, width), ((before, 0), (0, 0)))
            self.register_buffer('table', torch.from_numpy(table), persistent=False)
        else:
            self.table = None

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        if self.table is None:
            return tokens
        return tokens + self.table.reshape(tokens.shape[-1 - self.token_axes :])


class SelfAttention(nn.Module):
    """Softmax attention with separate query, key, value and output projections.

    `MSA(x) = Concat_i(softmax(q_i k_iᵀ / √d_head) v_i) W_O + b_O`.

    Source: Attention Is All You Need (arXiv 1706.03762), section 3.2.

    Args:
        width: of the tokens.
        num_heads: divides the width.
        axes: names of `AXES`. Heads are shared out equally among them in this order; each attends
            along its axis only, and the other axes do not mix.
        dropout_rate: of the attention weights.
    """

    def __init__(self, width: int, num_heads: int, axes: tuple[str, ...], dropout_rate: float):
        super().__init__()
        self.num_heads = num_heads
        self.axes = axes
        self.dropout_rate = dropout_rate
        self.query = _linear(width, width)
        self.key = _linear(width, width)
        self.value = _linear(width, width)
        self.out = _linear(width, width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Maps tokens [... n d] to [... n d]."""
        heads = [
            project(tokens).unflatten(-1, (self.num_heads, -1))
            for project in (self.query, self.key, self.value)
        ]
        groups = zip(*(x.chunk(len(self.axes), dim=-2) for x in heads), strict=True)
        mixed = [self._attend(axis, *group) for axis, group in zip(self.axes, groups, strict=True)]
        return self.out(torch.cat(mixed, dim=-2).flatten(-2))

    def _attend(self, axis: str, *heads: torch.Tensor) -> torch.Tensor:
        """Attends along one axis of queries, keys and values [... n k e] or [... t n k e]."""
        position = AXES[axis] - 1  # heads and their channels stand where the width was
        query, key, value = (x.movedim(position, -2) for x in heads)
        leading = query.shape[:-3]
        mixed = F.scaled_dot_product_attention(
            # Fused kernels take four axes only.
            *(x.reshape(-1, *x.shape[-3:]) for x in (query, key, value)),
            dropout_p=self.dropout_rate if self.training else 0.0,
        )
        return mixed.reshape(*leading, *mixed.shape[1:]).movedim(-2, position)


class MlpBlock(nn.Module):
    """`GELU(x W1 + b1) W2 + b2` on the last axis.

    `gelu='tanh'` is the approximation of JAX's ViTs, `'exact'` the error function of PyTorch's.
    """

    def __init__(self, width: int, mlp_dim: int, dropout_rate: float, gelu: str):
        super().__init__()
        self.approximate = 'tanh' if gelu == 'tanh' else 'none'
        self.fc1 = _linear(width, mlp_dim, bias_std=1e-6)
        self.fc2 = _linear(mlp_dim, width, bias_std=1e-6)
        self.dropout = nn.Dropout(dropout_rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.dropout(F.gelu(self.fc1(x), approximate=self.approximate))
        return self.dropout(self.fc2(x))


class DropPath(nn.Module):
    """Zeroes a residual branch [b ...] for whole examples and scales the others by 1/(1 - rate).

    Source: Deep Networks with Stochastic Depth (arXiv 1603.09382), with the rescaling of dropout.
    """

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, branch: torch.Tensor) -> torch.Tensor:
        if not self.training or not self.rate:
            return branch
        kept = torch.rand(len(branch), *[1] * (branch.ndim - 1), device=branch.device) >= self.rate
        return branch * kept / (1 - self.rate)


class EncoderBlock(nn.Module):
    """`y = x + MSA(LN(x))`, for each of its attentions, then `z = y + MLP(LN(y))`.

    Its only attention is called `attention`; several are called after their axes.

    Source: ViT (arXiv 2010.11929), equations 2 and 3; several attentions: ViViT, section 3.3.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        mlp_dim: int,
        attentions: Attentions,
        dropout_rate: float,
        attention_dropout_rate: float,
        drop_path_rate: float,
        gelu: str,
        layer_norm_eps: float,
    ):
        super().__init__()
        is_single = len(attentions) == 1
        self.attention_names = []
        for axes in attentions:
            name = 'attention' if is_single else f'{axes[0]}_attention'
            self.attention_names.append(name)
            self.add_module(f'{name}_norm', nn.LayerNorm(width, layer_norm_eps))
            self.add_module(name, SelfAttention(width, num_heads, axes, attention_dropout_rate))
        self.mlp_norm = nn.LayerNorm(width, layer_norm_eps)
        self.mlp = MlpBlock(width, mlp_dim, dropout_rate, gelu)
        self.dropout = nn.Dropout(dropout_rate)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Maps tokens [b ... d] to [b ... d]."""
        for name in self.attention_names:
            norm, attention = getattr(self, f'{name}_norm'), getattr(self, name)
            tokens = tokens + self.drop_path(self.dropout(attention(norm(tokens))))
        return tokens + self.drop_path(self.mlp(self.mlp_norm(tokens)))


class Encoder(nn.Module):
    """A class token, positions, dropout, blocks and a final LayerNorm; then one vector of them.

    Block l of L drops a residual branch of a clip with probability
    `drop_path_rate * l / max(L - 1, 1)`.

    Args:
        make_block: makes a block from its `attentions` and `drop_path_rate`.
        num_layers: L.
        width: of the tokens.
        grid, position: see `PositionEmbedding`.
        attentions: see `EncoderBlock`.
        pool: `'cls'`: the class token, or `'mean'` over tokens, without any.
        dropout_rate: after the positions.
        drop_path_rate: stochastic depth of the last block.
        layer_norm_eps: added to the variance.
    """

    def __init__(
        self,
        make_block: Callable[..., nn.Module],
        num_layers: int,
        width: int,
        grid: tuple[int, ...],
        attentions: Attentions,
        pool: str,
        position: str,
        dropout_rate: float,
        drop_path_rate: float,
        layer_norm_eps: float,
    ):
        super().__init__()
        self.token_axes = 1 if attentions == (('tokens',),) else 2
        has_class_token = pool == 'cls'
        self.class_token = nn.Parameter(torch.zeros(1, 1, width)) if has_class_token else None
        self.position = PositionEmbedding(position, grid, width, self.token_axes, has_class_token)
        self.dropout = nn.Dropout(dropout_rate)
        rates = (drop_path_rate * layer / max(num_layers - 1, 1) for layer in range(num_layers))
        self.blocks = nn.ModuleList(
            make_block(attentions=attentions, drop_path_rate=rate) for rate in rates
        )
        self.norm = nn.LayerNorm(width, layer_norm_eps)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Summarises sequences: tokens [b ... n d] to [b ... d], or [b t n d] to [b d]."""
        if self.class_token is not None:
            token = self.class_token.reshape(-1).expand(*tokens.shape[:-2], 1, -1)
            tokens = torch.cat([token, tokens], dim=-2)
        tokens = self.dropout(self.position(tokens))
        for block in self.blocks:
            tokens = block(tokens)
        tokens = self.norm(tokens)
        if self.class_token is not None:
            return tokens[..., 0, :]
        return tokens.mean(dim=tuple(range(-1 - self.token_axes, -1)))


def _linear(inputs: int, outputs: int, bias_std: float = 0.0) -> nn.Linear:
    """A layer with the initial values of the JAX models: Xavier's for the weight."""
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.normal_(layer.bias, std=bias_std)
    return layer
