"""What all models of transformer blocks share: their keywords, encoders and class tokens."""

import functools
from collections.abc import Callable, Mapping
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vivit_jax.layers.attention_kernels import FUSED
from vivit_jax.layers.blocks import ONE_SEQUENCE, Attentions, EncoderBlock
from vivit_jax.layers.encoder import Encoder
from vivit_jax.layers.heads import Classes, classify
from vivit_jax.models.outputs import ModelOutput


class VideoTransformer(nn.Module):
    """Base of the models.

    Attributes:
        num_classes: width of the classifier, which starts at zero; of each head by its name, for
            several heads.
        hidden_size: token width d.
        num_layers: blocks of the encoder; of the spatial one, where there are two.
        num_heads: attention heads; must divide `hidden_size`.
        mlp_dim: hidden width of the MLPs.
        tubelet_size: (t, h, w) frames and pixels of the clip that make a token.
        dropout_rate: dropout after embeddings, attention and both MLP layers.
        attention_dropout_rate: dropout of attention weights.
        drop_path_rate: stochastic depth of the last block; see `Encoder`.
        attention_implementation: see `dot_product_attention`.
        gelu: `'tanh'` or `'exact'`.
        layer_norm_eps: added to the variance.
        remat: `'none'`, `'block'` or `'dots'`: what is computed twice in order to save memory.
        scan_layers: whether one block is compiled for all layers; see `Encoder`.
        dtype: of the computation; parameters, softmax, norms and logits are float32.
    """

    num_classes: Classes = 400
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    mlp_dim: int = 3072
    tubelet_size: tuple[int, int, int] = (2, 16, 16)
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    drop_path_rate: float = 0.0
    attention_implementation: str = 'auto'
    gelu: str = 'tanh'
    layer_norm_eps: float = 1e-6
    remat: str = 'none'
    scan_layers: bool = False
    dtype: DTypeLike = 'float32'

    # Keywords with other choices than other models have.
    CHOICES: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    # Published variants: name to keywords.
    PRESETS: ClassVar[Mapping[str, Mapping[str, object]]] = {}

    @classmethod
    def check(cls, values: Mapping[str, object]):
        """Raises a ValueError where values of the attributes do not fit each other."""
        if values['attention_dropout_rate'] and values['attention_implementation'] in FUSED:
            raise ValueError(
                f'attention_implementation={values["attention_implementation"]!r} has no dropout: '
                "set attention_dropout_rate to 0, or take 'auto', 'einsum' or 'chunked'"
            )

    def _encoder(
        self,
        *,
        name: str,
        grid: tuple[int, ...],
        position: str,
        attentions: Attentions = ONE_SEQUENCE,
        num_layers: int | None = None,
        **block,
    ) -> Encoder:
        """An encoder of `self.num_layers` blocks; `block`: what else `EncoderBlock` takes."""
        return Encoder(
            self._block_maker(attentions=attentions, **block),
            num_layers=self.num_layers if num_layers is None else num_layers,
            grid=grid,
            position=position,
            token_axes=1 if attentions == ONE_SEQUENCE else 2,
            dropout_rate=self.dropout_rate,
            drop_path_rate=self.drop_path_rate,
            remat=self.remat,
            scan_layers=self.scan_layers,
            has_final_norm=block.get('norm', 'pre') == 'pre',
            name=name,
        )

    def _block_maker(
        self, block: Callable[..., EncoderBlock] = EncoderBlock, **keywords
    ) -> Callable[..., EncoderBlock]:
        """Makes blocks as the model's keywords say; `keywords` win."""
        return functools.partial(
            block,
            **{
                'num_heads': self.num_heads,
                'mlp_dim': self.mlp_dim,
                'dropout_rate': self.dropout_rate,
                'attention_dropout_rate': self.attention_dropout_rate,
                'attention_implementation': self.attention_implementation,
                'gelu': self.gelu,
                'layer_norm_eps': self.layer_norm_eps,
                'dtype': jnp.dtype(self.dtype),
                **keywords,
            },
        )

    def _prepend_class_token(self, tokens: jax.Array, name: str) -> jax.Array:
        """Tokens [b ... n d] to [b ... 1+n d]."""
        token = self.param(name, nn.initializers.zeros, (1, 1, self.hidden_size))
        token = jnp.broadcast_to(token.reshape(-1), (*tokens.shape[:-2], 1, self.hidden_size))
        return jnp.concatenate([token.astype(tokens.dtype), tokens], axis=-2)

    def _classify(self, features: jax.Array, captured: dict) -> ModelOutput:
        features = features.astype(jnp.float32)
        return ModelOutput(classify(features, self.num_classes), features, captured)
