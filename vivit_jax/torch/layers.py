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
ONE_SEQUENCE: Attentions = (('tokens',),)
SPACE_THEN_TIME: Attentions = (('space',), ('time',))
HEADS_SHARED: Attentions = (('time', 'space'),)

NUM_CHANNELS = 3  # red, green, blue
PROJECTIONS = ('query', 'key', 'value')


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
        channels: int = NUM_CHANNELS,
    ):
        super().__init__()
        self.tubelet_size = tubelet_size
        self.tokenizer = tokenizer
        self.num_sampled_frames = num_sampled_frames
        self.projection = _linear(math.prod(tubelet_size) * channels, hidden_size)

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
        num_heads: divides the width, or `head_dim` is given.
        axes: names of `AXES`. Heads are shared out equally among them in this order; each attends
            along its axis only, and the other axes do not mix.
        dropout_rate: of the attention weights.
        local: makes a module tokens -> tokens for each of query, key and value, which are
            projections of what it returns.
        relative: makes, for `num_heads` and `head_dim`, a module (query, key, places) -> logits
            [b k q n] that are added to those of the attention, which has a single axis.
        head_dim: None: the heads share out the width of the tokens.
        has_bias: whether queries, keys and values have one.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        axes: tuple[str, ...],
        dropout_rate: float,
        *,
        local: Callable[[], nn.Module] = nn.Identity,
        relative: Callable[..., nn.Module] | None = None,
        head_dim: int | None = None,
        has_bias: bool = True,
    ):
        super().__init__()
        self.num_heads = num_heads
        self.axes = axes
        self.dropout_rate = dropout_rate
        head_dim = head_dim or width // num_heads
        for name in PROJECTIONS:
            self.add_module(f'{name}_local', local())
            self.add_module(name, _linear(width, num_heads * head_dim, has_bias=has_bias))
        self.relative = relative(num_heads, head_dim) if relative else None
        self.out = _linear(num_heads * head_dim, width)

    def forward(self, tokens: torch.Tensor, places: torch.Tensor | None = None) -> torch.Tensor:
        """Maps tokens [... n d] to [... n d]; `places` is for `relative`."""
        heads = [self._project(name, tokens) for name in PROJECTIONS]
        groups = zip(*(x.chunk(len(self.axes), dim=-2) for x in heads), strict=True)
        mixed = [
            self._attend(axis, places, *group)
            for axis, group in zip(self.axes, groups, strict=True)
        ]
        return self.out(torch.cat(mixed, dim=-2).flatten(-2))

    def weights(self, tokens: torch.Tensor, places: torch.Tensor | None = None) -> torch.Tensor:
        """Attention weights [b k q n] of tokens [b n d]."""
        query, key = (self._project(name, tokens).movedim(-3, -2) for name in ('query', 'key'))
        logits = query @ key.mT * query.shape[-1] ** -0.5
        if self.relative is not None:
            logits = logits + self.relative(query, key, places)
        return logits.softmax(dim=-1)

    def _project(self, name: str, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens [... n d] to queries, keys or values [... n k e]."""
        seen = getattr(self, f'{name}_local')(tokens)
        return getattr(self, name)(seen).unflatten(-1, (self.num_heads, -1))

    def _attend(self, axis: str, places: torch.Tensor | None, *heads: torch.Tensor) -> torch.Tensor:
        """Attends along one axis of queries, keys and values [... n k e] or [... t n k e]."""
        position = AXES[axis] - 1  # heads and their channels stand where the width was
        query, key, value = (x.movedim(position, -2) for x in heads)
        leading = query.shape[:-3]
        # Fused kernels take four axes only.
        query, key, value = (x.reshape(-1, *x.shape[-3:]) for x in (query, key, value))
        mixed = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=None if self.relative is None else self.relative(query, key, places),
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

    Args:
        norm: `'pre'`, as above, or `'post'`: `y = LN(x + MSA(x))`, `z = LN(y + MLP(y))`.
        attention: makes the attentions, such as a `functools.partial` of `SelfAttention`.
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
        norm: str = 'pre',
        attention: Callable[..., nn.Module] = SelfAttention,
    ):
        super().__init__()
        self.is_pre = norm == 'pre'
        is_single = len(attentions) == 1
        self.attention_names = []
        for axes in attentions:
            name = 'attention' if is_single else f'{axes[0]}_attention'
            self.attention_names.append(name)
            self.add_module(f'{name}_norm', nn.LayerNorm(width, layer_norm_eps))
            self.add_module(name, attention(width, num_heads, axes, attention_dropout_rate))
        self.mlp_norm = nn.LayerNorm(width, layer_norm_eps)
        self.mlp = MlpBlock(width, mlp_dim, dropout_rate, gelu)
        self.dropout = nn.Dropout(dropout_rate)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Maps tokens [b ... d] to [b ... d]."""
        for name in self.attention_names:
            norm, attention = getattr(self, f'{name}_norm'), getattr(self, name)
            tokens = self._add(norm, lambda x, mix=attention: self.dropout(mix(x)), tokens)
        return self._add(self.mlp_norm, self.mlp, tokens)

    def _add(
        self,
        norm: nn.Module,
        branch: Callable[[torch.Tensor], torch.Tensor],
        tokens: torch.Tensor,
    ) -> torch.Tensor:
        """Adds a residual branch; the norm is before it or after the sum."""
        if self.is_pre:
            return tokens + self.drop_path(branch(norm(tokens)))
        return norm(tokens + self.drop_path(branch(tokens)))


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
        has_final_norm: whether the LayerNorm is there.
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
        has_final_norm: bool = True,
    ):
        super().__init__()
        self.token_axes = 1 if attentions == ONE_SEQUENCE else 2
        has_class_token = pool == 'cls'
        self.class_token = nn.Parameter(torch.zeros(1, 1, width)) if has_class_token else None
        self.position = PositionEmbedding(position, grid, width, self.token_axes, has_class_token)
        self.dropout = nn.Dropout(dropout_rate)
        rates = (drop_path_rate * layer / max(num_layers - 1, 1) for layer in range(num_layers))
        self.blocks = nn.ModuleList(
            make_block(attentions=attentions, drop_path_rate=rate) for rate in rates
        )
        self.norm = nn.LayerNorm(width, layer_norm_eps) if has_final_norm else nn.Identity()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Summarises sequences: tokens [b ... n d] to [b ... d], or [b t n d] to [b d]."""
        if self.class_token is not None:
            token = self.class_token.reshape(-1).expand(*tokens.shape[:-2], 1, -1)
            tokens = torch.cat([token, tokens], dim=-2)
        tokens = self.norm(self._run(self.dropout(self.position(tokens))))
        if self.class_token is not None:
            return tokens[..., 0, :]
        return tokens.mean(dim=tuple(range(-1 - self.token_axes, -1)))

    def _run(self, tokens: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


def _linear(inputs: int, outputs: int, bias_std: float = 0.0, has_bias: bool = True) -> nn.Linear:
    """A layer with the initial values of the JAX models: Xavier's for the weight."""
    layer = nn.Linear(inputs, outputs, bias=has_bias)
    nn.init.xavier_uniform_(layer.weight)
    if has_bias:
        nn.init.normal_(layer.bias, std=bias_std)
    return layer
