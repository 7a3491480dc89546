"""The transformer encoder: attention, MLP, block, and a stack of blocks."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vivit_jax.layers.attention_kernels import attention_weights, dot_product_attention
from vivit_jax.layers.gelu import gelu
from vivit_jax.layers.layout import row_major
from vivit_jax.layers.linear import Linear
from vivit_jax.layers.specification import TransformerSpecification
from vivit_jax.layers.stack import run_blocks
from vivit_jax.layers.tokens import PositionEmbedding

Rate = float | jax.Array | None  # rate of stochastic depth; None: nothing is dropped
Weights = dict[str, dict[str, jax.Array]]  # attention weights by layer and axis; may be empty

# The axes of tokens [... n d] or [... t n d] that attention can run along.
AXES = {'tokens': -2, 'space': -2, 'time': -3}


class SelfAttention(nn.Module):
    """`MSA(x) = Concat_i(softmax(q_i k_iᵀ / √d_head) v_i) W_O + b_O` for heads i; float32 softmax.

    Source: Attention Is All You Need (arXiv 1706.03762), section 3.2.
    """

    num_heads: int  # divides the width of the tokens, or head_dim is given
    # Names in AXES. The heads are divided equally among them, in this order. Each head attends
    # along its own axis only; the other axes do not mix.
    axes: tuple[str, ...] = ('tokens',)
    dropout_rate: float = 0.0  # of the attention weights
    implementation: str = 'auto'  # see `dot_product_attention`
    # Makes a module (tokens, train) -> tokens. It is called three times: queries, keys and values
    # are projections of the results of three such modules, instead of projections of the tokens.
    local: Callable[..., nn.Module] | None = None
    # Makes a module (query, key, places) -> [b k q n] whose result is added to the logits. Works
    # with a single axis only.
    relative: Callable[..., nn.Module] | None = None
    head_dim: int | None = None  # None: the heads divide the width of the tokens
    knn_ratio: float = 1.0  # share of the tokens that each token attends to, see `hide_distant`
    has_bias: bool = True  # of queries, keys and values
    dtype: DTypeLike = 'float32'  # of the computation

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        places: jax.Array | None = None,
        *,
        train: bool = False,
        capture_attention: bool = False,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Maps tokens [... n d] to [... n d]; `places` is for `relative`.

        Returns:
            The tokens, and, if captured, the float32 attention weights [... k q n] by axis (else
            an empty dict). Their leading axes are the axes of the tokens that do not mix.
        """
        heads = [self._project(name, tokens, train) for name in ('query', 'key', 'value')]
        num_groups = len(self.axes)
        # In queries, keys and values three axes replace the width: heads of a group, groups and
        # channels [k/g g e].
        heads = [x.reshape(*x.shape[:-2], -1, num_groups, x.shape[-1]) for x in heads]
        mixed, captured = [], {}
        for group, axis in enumerate(self.axes):
            part = [x[..., group, :] for x in heads]
            query, key, value = (jnp.moveaxis(x, AXES[axis] - 1, -3) for x in part)
            leading = query.shape[:-3]
            query, key, value = (x.reshape(-1, *x.shape[-3:]) for x in (query, key, value))
            bias = None
            if self.relative is not None:
                bias = self.relative(name='relative_position')(query, key, places)
            drops = train and self.dropout_rate > 0
            output = dot_product_attention(
                query,
                key,
                value,
                bias,
                # The attention weights are computed anyway if they are captured.
                implementation='einsum' if capture_attention else self.implementation,
                dropout_rate=self.dropout_rate,
                dropout_key=self.make_rng('dropout') if drops else None,
                knn_ratio=self.knn_ratio,
            )
            if capture_attention:
                weights = attention_weights(query, key, bias, self.knn_ratio)
                captured[axis] = weights.reshape(*leading, *weights.shape[1:])
            output = output.reshape(*leading, *output.shape[1:])
            mixed.append(jnp.moveaxis(output, -3, AXES[axis] - 1))
        mixed = jnp.stack(mixed, axis=-2)
        mixed = mixed.reshape(*mixed.shape[:-3], self.num_heads, mixed.shape[-1])
        out = Linear(
            (tokens.shape[-1],), num_inputs=2, num_groups=num_groups, dtype=self.dtype, name='out'
        )
        return out(mixed), captured

    def _project(self, name: str, tokens: jax.Array, train: bool) -> jax.Array:
        """Tokens [... n d] to queries, keys or values [... n k e]."""
        head_dim = self.head_dim or tokens.shape[-1] // self.num_heads
        if self.local is not None:
            tokens = self.local(dtype=self.dtype, name=f'{name}_local')(tokens, train=train)
        return Linear(
            (self.num_heads, head_dim),
            num_groups=len(self.axes),
            use_bias=self.has_bias,
            dtype=self.dtype,
            name=name,
        )(tokens)


class MlpBlock(nn.Module):
    """`GELU(x W1 + b1) W2 + b2` on the last axis.

    `gelu='tanh'` is the approximation in JAX's ViTs, `'exact'` the error function in PyTorch's, and
    `'quick'` the approximation `x σ(1.702 x)` in OpenAI's CLIP.
    """

    mlp_dim: int
    dropout_rate: float = 0.0
    gelu: str = 'tanh'
    dtype: DTypeLike = 'float32'

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        dense = functools.partial(Linear, bias_init=nn.initializers.normal(1e-6), dtype=self.dtype)
        width = x.shape[-1]
        x = dense((self.mlp_dim,), name='Dense_0')(x)
        x = gelu(x, self.gelu)
        x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
        x = dense((width,), name='Dense_1')(x)
        return nn.Dropout(self.dropout_rate)(x, deterministic=not train)


class DropPath(nn.Module):
    """Zeroes a residual branch [b ...] for whole examples and scales the others by 1/(1 - rate).

    Source: Deep Networks with Stochastic Depth (arXiv 1603.09382), with the rescaling of dropout.
    Differs from the original ViViT, which leaves the surviving branches unscaled.
    """

    @nn.compact
    def __call__(self, branch: jax.Array, rate: Rate, *, train: bool = False) -> jax.Array:
        """`rate` may be traced, as in a scan over layers."""
        if rate is None or not train:
            return branch
        shape = (len(branch), *(1,) * (branch.ndim - 1))
        kept = jax.random.bernoulli(self.make_rng('dropout'), 1 - rate, shape)
        return jnp.where(kept, branch / jnp.asarray(1 - rate, branch.dtype), 0)


class EncoderBlock(nn.Module):
    """`y = x + MSA(LN(x))`, then `z = y + MLP(LN(y))`.

    Source: ViT (arXiv 2010.11929), equations 2 and 3.
    """

    spec: TransformerSpecification
    axes: tuple[str, ...] = ('tokens',)  # the heads attend along these, see `SelfAttention`
    attention: Callable[..., nn.Module] = SelfAttention  # or a `functools.partial` of it

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        drop_path_rate: Rate = None,
        train: bool = False,
        capture_attention: bool = False,
    ) -> tuple[jax.Array, Weights]:
        """Maps tokens [b ... d] to [b ... d].

        Returns:
            The tokens, and, if captured, attention weights by attention and axis.
        """
        y, weights = self.attend('0', self.axes, tokens, drop_path_rate, train, capture_attention)
        return self.feed_forward('MlpBlock_0', '1', y, drop_path_rate, train), weights

    def attend(
        self, suffix: str, axes: tuple, tokens: jax.Array, rate: Rate, train: bool, capture: bool
    ) -> tuple[jax.Array, Weights]:
        """`x + MSA(LN(x))` along `axes`; the names of both modules end in `suffix`."""
        spec, name = self.spec, f'MultiHeadDotProductAttention_{suffix}'
        attention = self.attention(
            num_heads=spec.num_heads,
            axes=axes,
            dropout_rate=spec.attention_dropout_rate,
            implementation=spec.attention_implementation,
            knn_ratio=spec.knn_ratio,
            dtype=spec.dtype,
            name=name,
        )
        x = self.norm_before(suffix, tokens)
        x, weights = attention(x, train=train, capture_attention=capture)
        x = nn.Dropout(spec.dropout_rate)(x, deterministic=not train)
        tokens = tokens + DropPath()(x, rate, train=train)
        return self.norm_after(suffix, tokens), {name: weights} if weights else {}

    def feed_forward(
        self, name: str, suffix: str, tokens: jax.Array, rate: Rate, train: bool
    ) -> jax.Array:
        """`x + MLP(LN(x))`; the name of the norm ends in `suffix`."""
        spec = self.spec
        mlp = MlpBlock(spec.mlp_dim, spec.dropout_rate, spec.gelu, spec.dtype, name=name)
        x = mlp(self.norm_before(suffix, tokens), train=train)
        return self.norm_after(suffix, tokens + DropPath()(x, rate, train=train))

    def norm_before(self, suffix: str, tokens: jax.Array) -> jax.Array:
        """Normalizes the input of a residual branch."""
        return layer_norm(self.spec, f'LayerNorm_{suffix}')(tokens)

    def norm_after(self, suffix: str, tokens: jax.Array) -> jax.Array:
        """Normalizes the sum of a branch and its input in post-norm blocks; here, does nothing."""
        return tokens


class Encoder(nn.Module):
    """Positions, dropout, blocks and a final LayerNorm.

    Block l of L drops a residual branch of a clip with probability
    `drop_path_rate * l / max(L - 1, 1)`.
    """

    spec: TransformerSpecification
    grid: tuple[int, ...]  # number of places along each axis, see `PositionEmbedding`
    position: str = 'learned'
    token_axes: int = 1
    block: Callable[..., nn.Module] = EncoderBlock  # makes a block from `spec` and a name
    num_layers: int | None = None  # L; None: as `spec` says
    has_pre_norm: bool = False  # a LayerNorm before the blocks
    has_final_norm: bool = True

    @nn.compact
    def __call__(
        self, tokens: jax.Array, *, train: bool = False, capture_attention: bool = False
    ) -> tuple[jax.Array, dict[str, dict]]:
        """Maps tokens [b ... n d], or [b ... t n d], to the same shape.

        Returns:
            The tokens, and, if captured, attention weights by block, attention and axis.
        """
        spec, mode = self.spec, {'train': train, 'capture_attention': capture_attention}
        num_layers = spec.num_layers if self.num_layers is None else self.num_layers
        positions = PositionEmbedding(
            self.position, self.grid, self.token_axes, name='posembed_input'
        )
        tokens = nn.Dropout(spec.dropout_rate)(positions(tokens), deterministic=not train)
        if self.has_pre_norm:
            tokens = layer_norm(spec, 'pre_norm')(tokens)
        tokens = row_major(tokens)
        names = [f'encoderblock_{layer}' for layer in range(num_layers)]
        rates = drop_path_rates(spec, num_layers)
        tokens, captured = run_blocks(self, names, tokens, rates, mode)  # by a loop or a scan
        if self.has_final_norm:
            tokens = layer_norm(spec, 'encoder_norm')(tokens)
        return tokens, captured if capture_attention else {}


def drop_path_rates(spec: TransformerSpecification, num_layers: int) -> jax.Array | None:
    """The rate of each block, [num_layers]; None if nothing is dropped."""
    if not spec.drop_path_rate:
        return None
    return spec.drop_path_rate * jnp.arange(num_layers) / max(num_layers - 1, 1)


def layer_norm(spec: TransformerSpecification, name: str) -> nn.LayerNorm:
    """A LayerNorm over the last axis."""
    return nn.LayerNorm(epsilon=spec.layer_norm_eps, dtype=spec.dtype, name=name)
