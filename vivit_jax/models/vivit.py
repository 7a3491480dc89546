"""ViViT: A Video Vision Transformer (Arnab et al. 2021, arXiv 2103.15691).

Four models from one tokenizer, one block and one encoder: they differ in which axes of the tokens
attend. Parameter names and shapes are those of the original implementation, so that its checkpoints
load without a rename.
"""

import functools
from collections.abc import Mapping
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from vivit_jax.layers.blocks import Attentions, EncoderBlock
from vivit_jax.layers.encoder import Encoder
from vivit_jax.layers.heads import Classes, classify
from vivit_jax.layers.tokenizers import Tokenizer
from vivit_jax.models.outputs import ModelOutput

# Axes of each attention of a block, for tokens [b n d] or [b t n d]; see `SelfAttention`.
ONE_SEQUENCE: Attentions = (('tokens',),)
SPACE_THEN_TIME: Attentions = (('space',), ('time',))
TIME_THEN_SPACE: Attentions = (('time',), ('space',))
HEADS_SHARED: Attentions = (('time', 'space'),)


class ViViT(nn.Module):
    """What the four models share: tokens, encoders over them, classifier.

    Attributes:
        num_classes: width of the classifier, which starts at zero; of each head by its name, for
            several heads.
        hidden_size: token width d.
        num_layers: blocks of the encoder, of FE's spatial one.
        num_heads: attention heads; must divide `hidden_size`.
        mlp_dim: hidden width of the MLPs.
        tubelet_size: (t, h, w) pixels that make a token; t is 1 for `uniform_frames`.
        tokenizer: `'tubelet'`, or `'uniform_frames'`: patches of single frames.
        num_sampled_frames: frames that `uniform_frames` takes from a clip.
        pool: `'cls'`, a class token in each encoder, or `'mean'` over tokens, without any.
        position: `'learned'`, `'sincos3d'` or `'none'`, in each encoder.
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
    tokenizer: str = 'tubelet'
    num_sampled_frames: int = 16
    pool: str = 'cls'
    position: str = 'learned'
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    drop_path_rate: float = 0.0
    attention_implementation: str = 'auto'
    gelu: str = 'tanh'
    layer_norm_eps: float = 1e-6
    remat: str = 'none'
    scan_layers: bool = False
    dtype: DTypeLike = 'float32'

    # Keywords with fewer choices than other models have.
    CHOICES: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    @nn.compact
    def __call__(
        self, clip: jax.Array, train: bool = False, capture_attention: bool = False
    ) -> ModelOutput:
        """Classifies clips.

        Args:
            clip: float [b t h w c] in the range of the preprocessing, usually [-1, 1].
            train: switches dropout and stochastic depth on; needs the rng `dropout`.
            capture_attention: returns all attention weights, which holds them in memory.
        """
        tokens = Tokenizer(
            self.hidden_size,
            self.tubelet_size,
            self.tokenizer,
            self.num_sampled_frames,
            jnp.dtype(self.dtype),
            name='embedding',
        )(clip)
        encode = functools.partial(self._encode, train=train, capture_attention=capture_attention)
        features, captured = self._features(tokens, encode)
        features = features.astype(jnp.float32)
        return ModelOutput(classify(features, self.num_classes), features, captured)

    def _features(self, tokens: jax.Array, encode) -> tuple[jax.Array, dict]:
        """Tokens [b t h w d] to features [b d] and captured weights; each model has its own."""
        raise NotImplementedError

    def _encode(
        self,
        tokens: jax.Array,
        *,
        name: str,
        grid: tuple[int, ...],
        attentions: Attentions = ONE_SEQUENCE,
        num_layers: int | None = None,
        class_token: str = 'cls',
        train: bool,
        capture_attention: bool,
    ) -> tuple[jax.Array, dict]:
        """Summarises sequences: tokens [b ... n d] to [b ... d], or [b t n d] to [b d].

        Returns:
            The summaries, and captured attention weights under the name of the encoder.
        """
        token_axes = 1 if attentions == ONE_SEQUENCE else 2
        if self.pool == 'cls':
            token = self.param(class_token, nn.initializers.zeros, (1, 1, self.hidden_size))
            token = jnp.broadcast_to(token.reshape(-1), (*tokens.shape[:-2], 1, self.hidden_size))
            tokens = jnp.concatenate([token.astype(tokens.dtype), tokens], axis=-2)
        block = functools.partial(
            EncoderBlock,
            num_heads=self.num_heads,
            mlp_dim=self.mlp_dim,
            attentions=attentions,
            dropout_rate=self.dropout_rate,
            attention_dropout_rate=self.attention_dropout_rate,
            attention_implementation=self.attention_implementation,
            gelu=self.gelu,
            layer_norm_eps=self.layer_norm_eps,
            dtype=jnp.dtype(self.dtype),
        )
        tokens, captured = Encoder(
            block,
            num_layers=self.num_layers if num_layers is None else num_layers,
            grid=grid,
            position=self.position,
            token_axes=token_axes,
            dropout_rate=self.dropout_rate,
            drop_path_rate=self.drop_path_rate,
            remat=self.remat,
            scan_layers=self.scan_layers,
            name=name,
        )(tokens, train=train, capture_attention=capture_attention)
        if self.pool == 'cls':
            summary = tokens[..., 0, :]
        else:
            summary = tokens.mean(axis=tuple(range(-1 - token_axes, -1)))
        return summary, {name: captured} if captured else {}


class Joint(ViViT):
    """Model 1: every token of the clip attends to every other.

    Source: section 3.3, model 1.
    """

    def _features(self, tokens: jax.Array, encode) -> tuple[jax.Array, dict]:
        batch, *grid, width = tokens.shape
        return encode(tokens.reshape(batch, -1, width), name='Transformer', grid=tuple(grid))


class FactorizedEncoder(ViViT):
    """Model 2: a spatial encoder for every time index, then a temporal one over their summaries.

    Source: section 3.3, model 2; `temporal_num_layers=0` is the frame-average baseline of table 4.

    Attributes:
        temporal_num_layers: blocks of the temporal encoder; 0 takes the mean over time.
    """

    temporal_num_layers: int = 4

    def _features(self, tokens: jax.Array, encode) -> tuple[jax.Array, dict]:
        batch, time, height, width, _ = tokens.shape
        frames, captured = encode(
            tokens.reshape(batch, time, height * width, -1),
            name='SpatialTransformer',
            grid=(height, width),
            class_token='cls_SpatialTransformer',
        )
        if not self.temporal_num_layers:
            return frames.mean(axis=1), captured
        features, temporal = encode(
            frames,
            name='TemporalTransformer',
            grid=(time,),
            num_layers=self.temporal_num_layers,
            class_token='cls_TemporalTransformer',
        )
        return features, captured | temporal


class _FactorizedBlock(ViViT):
    """Models 3 and 4: blocks whose attentions run along space or along time."""

    pool: str = 'mean'
    CHOICES: ClassVar[Mapping[str, tuple[str, ...]]] = {'pool': ('mean',)}

    def _attentions(self) -> Attentions:
        raise NotImplementedError

    def _features(self, tokens: jax.Array, encode) -> tuple[jax.Array, dict]:
        batch, time, height, width, _ = tokens.shape
        return encode(
            tokens.reshape(batch, time, height * width, -1),
            name='Transformer',
            grid=(time, height, width),
            attentions=self._attentions(),
        )


class FactorizedSelfAttention(_FactorizedBlock):
    """Model 3: in every block attention along space, then another one along time.

    Source: section 3.3, model 3. Differs from the original implementation: stochastic depth acts.

    Attributes:
        attention_order: `'space_time'`, or `'time_space'`.
    """

    attention_order: str = 'space_time'

    def _attentions(self) -> Attentions:
        return SPACE_THEN_TIME if self.attention_order == 'space_time' else TIME_THEN_SPACE


class FactorizedDotProduct(_FactorizedBlock):
    """Model 4: half of the heads attend along time, the other half along space.

    Source: section 3.3, model 4, with time first, as in the original implementation and its
    checkpoints (the paper writes space first).
    """

    def _attentions(self) -> Attentions:
        return HEADS_SHARED
