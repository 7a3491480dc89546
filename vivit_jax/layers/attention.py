"""Multi-head self-attention."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike


class SelfAttention(nn.Module):
    """Softmax attention among tokens, with separate query, key, value and output projections.

    `MSA(x) = Concat_i(softmax(q_i k_iᵀ / √d_head) v_i) W_O + b_O`; the softmax is float32.

    Source: Attention Is All You Need (arXiv 1706.03762), section 3.2.
    """

    num_heads: int
    dropout_rate: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, tokens: jax.Array, *, train: bool = False) -> jax.Array:
        """Maps tokens [... n d] to [... n d]; axes before the last two do not mix."""
        width = tokens.shape[-1]
        head_dim = width // self.num_heads

        def project(name: str) -> jax.Array:
            return nn.DenseGeneral(
                (self.num_heads, head_dim),
                kernel_init=nn.initializers.xavier_uniform(),
                dtype=self.dtype,
                name=name,
            )(tokens)

        query, key, value = project('query'), project('key'), project('value')
        scores = jnp.einsum(
            '...qkd,...nkd->...kqn',
            query * head_dim**-0.5,
            key,
            preferred_element_type=jnp.float32,
        )
        weights = nn.Dropout(self.dropout_rate)(
            jax.nn.softmax(scores).astype(self.dtype), deterministic=not train
        )
        mixed = jnp.einsum('...kqn,...nkd->...qkd', weights, value)
        return nn.DenseGeneral(
            width,
            axis=(-2, -1),
            kernel_init=nn.initializers.xavier_uniform(),
            dtype=self.dtype,
            name='out',
        )(mixed)
