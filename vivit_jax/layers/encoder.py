"""A stack of transformer blocks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vivit_jax.layers.blocks import LAYER_NORM_EPSILON, EncoderBlock
from vivit_jax.layers.position import PositionEmbedding


class Encoder(nn.Module):
    """Positions, dropout, `num_layers` blocks and a final LayerNorm on tokens [b ... n d].

    Block l of L drops a residual branch of a clip with probability
    `drop_path_rate * l / max(L - 1, 1)`. For `position` and `grid` see `PositionEmbedding`.
    """

    num_layers: int
    num_heads: int
    mlp_dim: int
    grid: tuple[int, ...]
    position: str = 'learned'
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    drop_path_rate: float = 0.0
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, tokens: jax.Array, *, train: bool = False) -> jax.Array:
        tokens = PositionEmbedding(self.position, self.grid, name='posembed_input')(tokens)
        tokens = nn.Dropout(self.dropout_rate)(tokens, deterministic=not train)
        for layer in range(self.num_layers):
            tokens = EncoderBlock(
                num_heads=self.num_heads,
                mlp_dim=self.mlp_dim,
                dropout_rate=self.dropout_rate,
                attention_dropout_rate=self.attention_dropout_rate,
                drop_path_rate=self.drop_path_rate * layer / max(self.num_layers - 1, 1),
                dtype=self.dtype,
                name=f'encoderblock_{layer}',
            )(tokens, train=train)
        return nn.LayerNorm(epsilon=LAYER_NORM_EPSILON, dtype=self.dtype, name='encoder_norm')(
            tokens
        )
