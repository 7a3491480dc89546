"""The pre-norm transformer block."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vivit_jax.layers.attention import SelfAttention
from vivit_jax.layers.drop_path import DropPath
from vivit_jax.layers.mlp import MlpBlock

LAYER_NORM_EPSILON = 1e-6


class EncoderBlock(nn.Module):
    """`y = x + MSA(LN(x)); z = y + MLP(LN(y))` on tokens [b ... n d].

    Source: ViT (arXiv 2010.11929), equations 2 and 3.
    """

    num_heads: int
    mlp_dim: int
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    drop_path_rate: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, tokens: jax.Array, *, train: bool = False) -> jax.Array:
        def norm(x: jax.Array) -> jax.Array:
            return nn.LayerNorm(epsilon=LAYER_NORM_EPSILON, dtype=self.dtype)(x)

        x = SelfAttention(
            self.num_heads,
            self.attention_dropout_rate,
            self.dtype,
            name='MultiHeadDotProductAttention_0',
        )(norm(tokens), train=train)
        x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
        tokens = tokens + DropPath(self.drop_path_rate)(x, train=train)

        x = MlpBlock(self.mlp_dim, self.dropout_rate, self.dtype)(norm(tokens), train=train)
        return tokens + DropPath(self.drop_path_rate)(x, train=train)
