"""Multi-head self-attention along one axis of the tokens, or along two of them."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vivit_jax.layers.attention_kernels import attention_weights, dot_product_attention
from vivit_jax.layers.linear import Linear

# The axes of tokens [... n d] or [... t n d] that attention can run along.
AXES = {'tokens': -2, 'space': -2, 'time': -3}


class SelfAttention(nn.Module):
    """Softmax attention with separate query, key, value and output projections.

    `MSA(x) = Concat_i(softmax(q_i k_iᵀ / √d_head) v_i) W_O + b_O`; the softmax is float32.

    Source: Attention Is All You Need (arXiv 1706.03762), section 3.2.

    Attributes:
        num_heads: divides the width of the tokens, or `head_dim` is given.
        axes: names of `AXES`. Heads are shared out equally among them in this order; each attends
            along its axis only, and the other axes do not mix.
        dropout_rate: of the attention weights.
        implementation: see `dot_product_attention`.
        local: makes a module (tokens, train) -> tokens for each of query, key and value, which
            are projections of what it returns; None: of the tokens themselves.
        relative: makes a module (query, key, places) -> logits [b k q n] that are added to those
            of the attention, which has a single axis.
        head_dim: None: the heads share out the width of the tokens.
        has_bias: whether queries, keys and values have one.
        dtype: of the computation.
    """

    num_heads: int
    axes: tuple[str, ...] = ('tokens',)
    dropout_rate: float = 0.0
    implementation: str = 'auto'
    local: Callable[..., nn.Module] | None = None
    relative: Callable[..., nn.Module] | None = None
    head_dim: int | None = None
    has_bias: bool = True
    dtype: DTypeLike = jnp.float32

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
            The tokens, and, if captured, the float32 attention weights [... k q n] by axis, whose
            leading axes are those of the tokens that do not mix; else nothing.
        """
        width = tokens.shape[-1]
        projections = []
        for name in ('query', 'key', 'value'):
            seen = tokens
            if self.local is not None:
                seen = self.local(dtype=self.dtype, name=f'{name}_local')(tokens, train=train)
            projection = Linear(
                (self.num_heads, self.head_dim or width // self.num_heads),
                use_bias=self.has_bias,
                dtype=self.dtype,
                name=name,
            )
            projections.append(projection(seen))
        share = self.num_heads // len(self.axes)
        mixed, captured = [], {}
        for group, axis in enumerate(self.axes):
            heads = (x[..., group * share : (group + 1) * share, :] for x in projections)
            # Behind the tokens' axes stand heads and channels where the width was.
            query, key, value = (jnp.moveaxis(x, AXES[axis] - 1, -3) for x in heads)
            leading = query.shape[:-3]
            query, key, value = (x.reshape(-1, *x.shape[-3:]) for x in (query, key, value))
            drops = train and self.dropout_rate > 0
            bias = None
            if self.relative is not None:
                bias = self.relative(name='relative_position')(query, key, places)
            output = dot_product_attention(
                query,
                key,
                value,
                bias,
                # What is captured exists anyway.
                implementation='einsum' if capture_attention else self.implementation,
                dropout_rate=self.dropout_rate,
                dropout_key=self.make_rng('dropout') if drops else None,
            )
            if capture_attention:
                weights = attention_weights(query, key, bias)
                captured[axis] = weights.reshape(*leading, *weights.shape[1:])
            output = output.reshape(*leading, *output.shape[1:])
            mixed.append(jnp.moveaxis(output, -3, AXES[axis] - 1))
        out = Linear((width,), num_inputs=2, dtype=self.dtype, name='out')
        tokens = out(jnp.concatenate(mixed, axis=-2))
        return tokens, captured
