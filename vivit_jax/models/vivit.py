"""ViViT: A Video Vision Transformer (Arnab et al. 2021, arXiv 2103.15691).

Parameter names and shapes are those of the original implementation, so that its checkpoints load
without a rename.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vivit_jax.layers.encoder import Encoder
from vivit_jax.layers.tokenizers import Tokenizer
from vivit_jax.models.outputs import ModelOutput


class FactorizedEncoder(nn.Module):
    """Model 2: a spatial encoder for every time index, then a temporal one over their summaries.

    Source: section 3.3, model 2; `temporal_num_layers=0` is the frame-average baseline of table 4.

    Attributes:
        num_classes: width of the classifier, which starts at zero.
        hidden_size: token width d.
        num_layers: blocks of the spatial encoder.
        num_heads: attention heads of both encoders; must divide `hidden_size`.
        mlp_dim: hidden width of the MLPs.
        tubelet_size: (t, h, w) pixels that make a token; t is 1 for `uniform_frames`.
        tokenizer: `'tubelet'`, or `'uniform_frames'`: patches of single frames.
        num_sampled_frames: frames that `uniform_frames` takes from a clip.
        pool: `'cls'`, a class token in each encoder, or `'mean'` over tokens, without any.
        temporal_num_layers: blocks of the temporal encoder; 0 takes the mean over time.
        position: `'learned'`, `'sincos3d'` or `'none'`, in both encoders.
        dropout_rate: dropout after embeddings, attention and both MLP layers.
        attention_dropout_rate: dropout of attention weights.
        drop_path_rate: stochastic depth of the last block; see `Encoder`.
        dtype: of the computation; parameters, softmax, norms and logits are float32.
    """

    num_classes: int = 400
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    mlp_dim: int = 3072
    tubelet_size: tuple[int, int, int] = (2, 16, 16)
    tokenizer: str = 'tubelet'
    num_sampled_frames: int = 16
    pool: str = 'cls'
    temporal_num_layers: int = 4
    position: str = 'learned'
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    drop_path_rate: float = 0.0
    dtype: DTypeLike = 'float32'

    @nn.compact
    def __call__(self, clip: jax.Array, train: bool = False) -> ModelOutput:
        """Classifies clips.

        Args:
            clip: float [b t h w c] in the range of the preprocessing, usually [-1, 1].
            train: switches dropout and stochastic depth on; needs the rng `dropout`.
        """
        dtype = jnp.dtype(self.dtype)
        tokens = Tokenizer(
            self.hidden_size,
            self.tubelet_size,
            self.tokenizer,
            self.num_sampled_frames,
            dtype,
            name='embedding',
        )(clip)
        batch, time, height, width, _ = tokens.shape
        tokens = tokens.reshape(batch, time, height * width, self.hidden_size)

        frames = self._encode(tokens, 'SpatialTransformer', self.num_layers, (height, width), train)
        if self.temporal_num_layers:
            features = self._encode(
                frames, 'TemporalTransformer', self.temporal_num_layers, (time,), train
            )
        else:
            features = frames.mean(axis=1)
        features = features.astype(jnp.float32)
        logits = nn.Dense(
            self.num_classes, kernel_init=nn.initializers.zeros, name='output_projection'
        )(features)
        return ModelOutput(logits=logits, features=features)

    def _encode(
        self, tokens: jax.Array, name: str, num_layers: int, grid: tuple[int, ...], train: bool
    ) -> jax.Array:
        """Summarises sequences: tokens [b ... n d] to [b ... d]."""
        if self.pool == 'cls':
            token = self.param(f'cls_{name}', nn.initializers.zeros, (1, 1, self.hidden_size))
            token = jnp.broadcast_to(token.reshape(-1), (*tokens.shape[:-2], 1, self.hidden_size))
            tokens = jnp.concatenate([token.astype(tokens.dtype), tokens], axis=-2)
        tokens = Encoder(
            num_layers=num_layers,
            num_heads=self.num_heads,
            mlp_dim=self.mlp_dim,
            grid=grid,
            position=self.position,
            dropout_rate=self.dropout_rate,
            attention_dropout_rate=self.attention_dropout_rate,
            drop_path_rate=self.drop_path_rate,
            dtype=jnp.dtype(self.dtype),
            name=name,
        )(tokens, train=train)
        return tokens[..., 0, :] if self.pool == 'cls' else tokens.mean(axis=-2)
