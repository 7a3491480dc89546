"""The transformer block."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vivit_jax.layers.attention import SelfAttention
from vivit_jax.layers.drop_path import DropPath
from vivit_jax.layers.mlp import MlpBlock

# Axes of each attention of a block for tokens [b n d] or [b t n d], see `SelfAttention`.
Attentions = tuple[tuple[str, ...], ...]
ONE_SEQUENCE: Attentions = (('tokens',),)
SPACE_THEN_TIME: Attentions = (('space',), ('time',))
TIME_THEN_SPACE: Attentions = (('time',), ('space',))
HEADS_SHARED: Attentions = (('time', 'space'),)


class EncoderBlock(nn.Module):
    """`y = x + MSA(LN(x))`, for each of its attentions, then `z = y + MLP(LN(y))`.

    Source: ViT (arXiv 2010.11929), equations 2 and 3; several attentions: ViViT, section 3.3.
    Parameter names are the original ViViT's: those of a block with one attention are numbered,
    those of a block with several are called after the axes.

    Attributes:
        norm: `'pre'`, as above, or `'post'`: `y = LN(x + MSA(x))`, `z = LN(y + MLP(y))`.
        attention: makes the attentions, such as a `functools.partial` of `SelfAttention`.
    """

    num_heads: int
    mlp_dim: int
    attentions: Attentions = ONE_SEQUENCE
    norm: str = 'pre'
    attention: Callable[..., nn.Module] = SelfAttention
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
        tokens, captured = self._attend(tokens, drop_path_rate, train, capture_attention)
        return self._feed_forward(tokens, drop_path_rate, train), captured

    def _attend(
        self,
        tokens: jax.Array,
        drop_path_rate: float | jax.Array | None,
        train: bool,
        capture_attention: bool,
        places: jax.Array | None = None,
    ) -> tuple[jax.Array, dict[str, dict[str, jax.Array]]]:
        captured = {}
        for axes in self.attentions:
            suffix = '0' if self._is_single else axes[0]
            name = f'MultiHeadDotProductAttention_{suffix}'
            norm = self._layer_norm(name=f'LayerNorm_{suffix}')
            x, weights = self.attention(
                num_heads=self.num_heads,
                axes=axes,
                dropout_rate=self.attention_dropout_rate,
                implementation=self.attention_implementation,
                dtype=self.dtype,
                name=name,
            )(
                norm(tokens) if self._is_pre else tokens,
                places,
                train=train,
                capture_attention=capture_attention,
            )
            if capture_attention:
                captured[name] = weights
            x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
            tokens = tokens + DropPath()(x, drop_path_rate, train=train)
            tokens = tokens if self._is_pre else norm(tokens)
        return tokens, captured

    def _feed_forward(
        self, tokens: jax.Array, drop_path_rate: float | jax.Array | None, train: bool
    ) -> jax.Array:
        norm = self._layer_norm(name='LayerNorm_1' if self._is_single else 'LayerNorm_mlp')
        x = MlpBlock(
            mlp_dim=self.mlp_dim,
            dropout_rate=self.dropout_rate,
            gelu=self.gelu,
            dtype=self.dtype,
            name='MlpBlock_0' if self._is_single else 'MlpBlock',
        )(norm(tokens) if self._is_pre else tokens, train=train)
        tokens = tokens + DropPath()(x, drop_path_rate, train=train)
        return tokens if self._is_pre else norm(tokens)

    @property
    def _is_pre(self) -> bool:
        return self.norm == 'pre'

    @property
    def _is_single(self) -> bool:
        return len(self.attentions) == 1

    def _layer_norm(self, name: str) -> nn.Module:
        return nn.LayerNorm(epsilon=self.layer_norm_eps, dtype=self.dtype, name=name)
