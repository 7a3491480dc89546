"""`vivit_jax.layers.transformer` in PyTorch: attention, MLP, block, encoder.

Tokens are float [b n d], or [b t n d] if attention runs along time and space.
"""

import functools
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import nn

from vivit_jax.layers.specification import TransformerSpecification, num_neighbours
from vivit_jax.layers.torch.tokens import PositionEmbedding, linear

# The axes of tokens [... n d] or [... t n d] that attention can run along.
AXES = {'tokens': -2, 'space': -2, 'time': -3}

PROJECTIONS = ('query', 'key', 'value')


class SelfAttention(nn.Module):
    """Softmax attention with separate query, key, value and output projections.

    `MSA(x) = Concat_i(softmax(q_i k_iᵀ / √d_head) v_i) W_O + b_O`.

    Source: Attention Is All You Need (arXiv 1706.03762), section 3.2.

    Args:
        width: width d of the tokens.
        num_heads: divides the width, or `head_dim` is given.
        axes: names in `AXES`. The heads are divided equally among them, in this order. Each head
            attends along its own axis only; the other axes do not mix.
        dropout_rate: dropout rate of the attention weights.
        local: makes a module tokens -> tokens. It is called three times: queries, keys and values
            are projections of the results of three such modules.
        relative: makes, for `num_heads` and `head_dim`, a module (query, key, places) -> [b k q n]
            whose result is added to the logits. Works with a single axis only.
        head_dim: channels of a head; None: the heads divide the width of the tokens.
        has_bias: whether queries, keys and values have a bias.
        knn_ratio: share of the tokens that each token attends to, see `mask_distant`.
    """

    def __init__(
        self,
        width: int,
        num_heads: int,
        axes: tuple[str, ...] = ('tokens',),
        dropout_rate: float = 0.0,
        *,
        local: Callable[[], nn.Module] = nn.Identity,
        relative: Callable[..., nn.Module] | None = None,
        head_dim: int | None = None,
        has_bias: bool = True,
        knn_ratio: float = 1.0,
    ):
        super().__init__()
        self.num_heads = num_heads
        self.knn_ratio = knn_ratio
        self.axes = axes
        self.dropout_rate = dropout_rate
        head_dim = head_dim or width // num_heads
        for name in PROJECTIONS:
            self.add_module(f'{name}_local', local())
            self.add_module(name, linear(width, num_heads * head_dim, has_bias=has_bias))
        self.relative = relative(num_heads, head_dim) if relative else None
        self.out = linear(num_heads * head_dim, width)

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
        bias = self._bias(query, key, places)
        logits = _logits(query, key)
        return (logits if bias is None else logits + bias).softmax(dim=-1)

    def _bias(
        self, query: torch.Tensor, key: torch.Tensor, places: torch.Tensor | None
    ) -> torch.Tensor | None:
        """What is added to the logits [b k q n]: relative positions, -inf for distant keys."""
        relative = None if self.relative is None else self.relative(query, key, places)
        if self.knn_ratio == 1:
            return relative
        logits = _logits(query, key)
        logits = logits if relative is None else logits + relative
        distant = mask_distant(logits.detach(), self.knn_ratio)
        return distant if relative is None else relative + distant

    def _project(self, name: str, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens [... n d] to queries, keys or values [... n k e]."""
        seen = getattr(self, f'{name}_local')(tokens)
        return getattr(self, name)(seen).unflatten(-1, (self.num_heads, -1))

    def _attend(self, axis: str, places: torch.Tensor | None, *heads: torch.Tensor) -> torch.Tensor:
        """Attends along one axis of queries, keys and values [... n k e] or [... t n k e]."""
        position = AXES[axis] - 1  # two axes, heads and channels, replace the width
        query, key, value = (x.movedim(position, -2) for x in heads)
        leading = query.shape[:-3]
        # Fused kernels take four axes only.
        query, key, value = (x.reshape(-1, *x.shape[-3:]) for x in (query, key, value))
        mixed = F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=self._bias(query, key, places),
            dropout_p=self.dropout_rate if self.training else 0.0,
        )
        return mixed.reshape(*leading, *mixed.shape[1:]).movedim(-2, position)


def mask_distant(logits: torch.Tensor, knn_ratio: float) -> torch.Tensor:
    """0 for the k largest logits [... n] of each row, of equal ones the first; -inf for the others.

    Source: k-NN attention, KVT (arXiv 2106.00515), section 3.2; k: see `num_neighbours`.
    """
    order = logits.argsort(dim=-1, descending=True, stable=True)
    near = order[..., : num_neighbours(knn_ratio, logits.shape[-1])]
    return torch.full_like(logits, -torch.inf).scatter(-1, near, 0.0)


def _logits(query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
    """Logits [b k q n] of queries and keys [b k n e]."""
    return query @ key.mT * query.shape[-1] ** -0.5


_GELUS = {
    'exact': F.gelu,
    'tanh': functools.partial(F.gelu, approximate='tanh'),
    'quick': lambda x: x * torch.sigmoid(1.702 * x),
}


class MlpBlock(nn.Module):
    """`GELU(x W1 + b1) W2 + b2` on the last axis.

    `gelu='tanh'` is the approximation in JAX's ViTs, `'exact'` the error function in PyTorch's, and
    `'quick'` the approximation `x σ(1.702 x)` in OpenAI's CLIP.
    """

    def __init__(self, width: int, mlp_dim: int, dropout_rate: float, gelu: str):
        super().__init__()
        self.gelu = _GELUS[gelu]
        self.fc1 = linear(width, mlp_dim, bias_std=1e-6)
        self.fc2 = linear(mlp_dim, width, bias_std=1e-6)
        self.dropout = nn.Dropout(dropout_rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.dropout(self.gelu(self.fc1(x)))
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
    """`y = x + MSA(LN(x))`, then `z = y + MLP(LN(y))`.

    Source: ViT (arXiv 2010.11929), equations 2 and 3.

    Args:
        spec: sizes and rates.
        drop_path_rate: rate of stochastic depth in both branches.
        attentions: names of the attentions, with the axes of each, see `SelfAttention`.
        attention: makes an attention, such as a `functools.partial` of `SelfAttention`.
        mlp_dim: hidden width of the MLP; None: `spec.mlp_dim`.
    """

    def __init__(
        self,
        spec: TransformerSpecification,
        drop_path_rate: float,
        attentions: Mapping[str, tuple[str, ...]] = {'attention': ('tokens',)},
        attention: Callable[..., nn.Module] | None = None,
        mlp_dim: int | None = None,
    ):
        super().__init__()
        self.attention_names = list(attentions)
        for name, axes in attentions.items():
            self.add_module(f'{name}_norm', layer_norm(spec))
            make = attention or functools.partial(SelfAttention, num_heads=spec.num_heads)
            self.add_module(
                name,
                make(
                    spec.hidden_size,
                    axes=axes,
                    dropout_rate=spec.attention_dropout_rate,
                    knn_ratio=spec.knn_ratio,
                ),
            )
        self.mlp_norm = layer_norm(spec)
        self.mlp = MlpBlock(spec.hidden_size, mlp_dim or spec.mlp_dim, spec.dropout_rate, spec.gelu)
        self.dropout = nn.Dropout(spec.dropout_rate)
        self.drop_path = DropPath(drop_path_rate)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Maps tokens [b ... d] to [b ... d]."""
        for name in self.attention_names:
            attention = getattr(self, name)
            branch = lambda x, attend=attention: self.dropout(attend(x))  # noqa: E731
            tokens = self.add(getattr(self, f'{name}_norm'), branch, tokens)
        return self.add(self.mlp_norm, self.mlp, tokens)

    def add(
        self,
        norm: nn.Module,
        branch: Callable[[torch.Tensor], torch.Tensor],
        tokens: torch.Tensor,
    ) -> torch.Tensor:
        """`x + branch(LN(x))`."""
        return tokens + self.drop_path(branch(norm(tokens)))


class Encoder(nn.Module):
    """A class token, positions, dropout, blocks and a final LayerNorm; then may pool the tokens.

    Block l of L drops a residual branch of a clip with probability
    `drop_path_rate * l / max(L - 1, 1)`.

    Args:
        spec: sizes and rates.
        grid, position, token_axes: see `PositionEmbedding`.
        block: makes a block from `spec` and a rate.
        num_layers: L; None: `spec.num_layers`.
        pool: `'cls'` returns the class token, `'mean'` the mean over tokens, `'none'` all tokens.
        has_class_token: whether there is a class token, before the other tokens; by default with
            `'cls'` only.
        has_pre_norm: whether there is a LayerNorm before the blocks.
        has_final_norm: whether there is a final LayerNorm.
    """

    def __init__(
        self,
        spec: TransformerSpecification,
        grid: tuple[int, ...],
        position: str,
        *,
        token_axes: int = 1,
        block: Callable[..., nn.Module] = EncoderBlock,
        num_layers: int | None = None,
        pool: str,
        has_class_token: bool | None = None,
        has_pre_norm: bool = False,
        has_final_norm: bool = True,
    ):
        super().__init__()
        width = spec.hidden_size
        has_class_token = pool == 'cls' if has_class_token is None else has_class_token
        num_layers = spec.num_layers if num_layers is None else num_layers
        self.token_axes, self.pool = token_axes, pool
        self.class_token = nn.Parameter(torch.zeros(1, 1, width)) if has_class_token else None
        self.position = PositionEmbedding(position, grid, width, token_axes, has_class_token)
        self.dropout = nn.Dropout(spec.dropout_rate)
        rates = (
            spec.drop_path_rate * layer / max(num_layers - 1, 1) for layer in range(num_layers)
        )
        self.blocks = nn.ModuleList(block(spec, rate) for rate in rates)
        self.pre_norm = layer_norm(spec) if has_pre_norm else nn.Identity()
        self.norm = layer_norm(spec) if has_final_norm else nn.Identity()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Summarises sequences: tokens [b ... n d] to [b ... d], or [b t n d] to [b d]."""
        if self.class_token is not None:
            token = self.class_token.reshape(-1).expand(*tokens.shape[:-2], 1, -1)
            tokens = torch.cat([token, tokens], dim=-2)
        tokens = self.pre_norm(self.dropout(self.position(tokens)))
        tokens = self.norm(self.run_blocks(tokens))
        if self.pool == 'cls':
            return tokens[..., 0, :]
        if self.pool == 'none':
            return tokens
        return tokens.mean(dim=tuple(range(-1 - self.token_axes, -1)))

    def run_blocks(self, tokens: torch.Tensor) -> torch.Tensor:
        """Runs the blocks on tokens; subclasses may return fewer tokens."""
        for block in self.blocks:
            tokens = block(tokens)
        return tokens


def layer_norm(spec: TransformerSpecification) -> nn.LayerNorm:
    """A LayerNorm over the last axis."""
    return nn.LayerNorm(spec.hidden_size, spec.layer_norm_eps)
