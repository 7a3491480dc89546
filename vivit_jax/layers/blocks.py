"""The pre-norm transformer block."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vivit_jax.layers.attention import SelfAttention
from vivit_jax.layers.drop_path import DropPath
from vivit_jax.layers.mlp import MlpBlock

# Axes of each attention of a block, see `SelfAttention`.
Attentions = tuple[tuple[str, ...], ...]


class EncoderBlock(nn.Module):
    """`y = x + MSA(LN(x))`, for each of its attentions, then `z = y + MLP(LN(y))`.

    Source: ViT (arXiv 2010.11929), equations 2 and 3; several attentions: ViViT, section 3.3.
    Parameter names are the original ViViT's: those of a block with one attention are numbered,
    those of a block with several are called after the axes.
    """

    num_heads: int
    mlp_dim: int
    attentions: Attentions = (('tokens',),)
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    attention_implementation: str = 'auto'
    gelu: str = 'tanh'
    layer_norm_eps: float = 1e-6
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        drop_path_rate: float | jax.Array | None = None,
        train: bool = False,
        capture_attention: bool = False,
    ) -> tuple[jax.Array, dict[str, dict[str, jax.Array]]]:
        """Maps tokens [b ... d] to [b ... d].

        Returns:
            The tokens, and, if captured, attention weights by attention and axis.
        """
        norm = functools.partial(nn.LayerNorm, epsilon=self.layer_norm_eps, dtype=self.dtype)
        is_single = len(self.attentions) == 1
        captured = {}
        for axes in self.attentions:
            suffix = '0' if is_single else axes[0]
            name = f'MultiHeadDotProductAttention_{suffix}'
            x, weights = SelfAttention(
                num_heads=self.num_heads,
                axes=axes,
                dropout_rate=self.attention_dropout_rate,
                implementation=self.attention_implementation,
                dtype=self.dtype,
                name=name,
            )(
                norm(name=f'LayerNorm_{suffix}')(tokens),
                train=train,
                capture_attention=capture_attention,
            )
            if capture_attention:
                captured[name] = weights
            x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
            tokens = tokens + DropPath()(x, drop_path_rate, train=train)

        x = norm(name='LayerNorm_1' if is_single else 'LayerNorm_mlp')(tokens)
        x = MlpBlock(
            mlp_dim=self.mlp_dim,
            dropout_rate=self.dropout_rate,
            gelu=self.gelu,
            dtype=self.dtype,
            name='MlpBlock_0' if is_single else 'MlpBlock',
        )(x, train=train)
        return tokens + DropPath()(x, drop_path_rate, train=train), captured
