"""The temporal encoder of RPE-STDT, in which some blocks halve the number of frames.

Source: Yujun Ma, Deep learning for action recognition in videos (PhD thesis, Massey University,
2024), chapter 3; below, "Ma 2024".
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from vivit_jax.layers.tokens import PositionEmbedding
from vivit_jax.layers.transformer import (
    DropPath,
    MlpBlock,
    Rate,
    SelfAttention,
    Weights,
    drop_path_rates,
    layer_norm,
)
from vivit_jax.models.rpe_stdt import specification
from vivit_jax.models.rpe_stdt.relative_position import RelativePosition


class TemporalBlock(nn.Module):
    """A block that can drop, after its attention, the frames that attend least selectively.

    Attributes:
        spec: sizes and rates.
        num_frames: number of frames in the whole sequence.
        selects: whether the block drops frames; see `select_frames`.
    """

    spec: specification.RpeStdt
    num_frames: int = 0
    selects: bool = False

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        places: jax.Array,
        drop_path_rate: Rate = None,
        train: bool = False,
        capture_attention: bool = False,
    ) -> tuple[jax.Array, jax.Array, Weights]:
        """Maps tokens [b 1+t d], the class token first, to the same number of tokens or fewer.

        Args:
            tokens: [b 1+t d], of any float type.
            places: int [b 1+t], the positions of the tokens in the whole sequence.
            drop_path_rate, train, capture_attention: as for `EncoderBlock`.

        Returns:
            The tokens, their places, and, if captured, attention weights by attention and axis.
        """
        spec, is_relative = self.spec, self.spec.temporal_pos == 'rpe'
        name = 'MultiHeadDotProductAttention_0'
        attention = SelfAttention(
            spec.temporal_num_heads,
            dropout_rate=spec.attention_dropout_rate,
            implementation='einsum',  # the sequence is short, with one token per frame
            knn_ratio=spec.knn_ratio,
            relative=functools.partial(RelativePosition, (self.num_frames,))
            if is_relative
            else None,
            head_dim=spec.temporal_head_dim if spec.light else None,
            has_bias=not spec.light,
            dtype=spec.dtype,
            name=name,
        )
        mlp = MlpBlock(
            spec.hidden_size if spec.light else spec.mlp_dim,
            spec.dropout_rate,
            spec.gelu,
            spec.dtype,
            name='MlpBlock_0',
        )
        x, weights = attention(
            layer_norm(spec, 'LayerNorm_0')(tokens),
            places,
            train=train,
            capture_attention=capture_attention or self.selects,
        )
        x = nn.Dropout(spec.dropout_rate)(x, deterministic=not train)
        tokens = tokens + DropPath()(x, drop_path_rate, train=train)
        if self.selects:
            # Frames are dropped after attention, so that the kept frames attended to all frames.
            tokens, places = select_frames(tokens, places, weights['tokens'])
        x = mlp(layer_norm(spec, 'LayerNorm_1')(tokens), train=train)
        tokens = tokens + DropPath()(x, drop_path_rate, train=train)
        return tokens, places, {name: weights} if capture_attention else {}


class TemporalEncoder(nn.Module):
    """Positions, dropout, blocks and a final LayerNorm for a class token and frames, [b 1+t d].

    The blocks in `subsample_layers` reduce t frames to ⌈t/2⌉: `'topk'` selects frames within the
    block, see `select_frames`; `'max'` and `'avg'` pool pairs before the block; `'conv'` is a
    convolution of stride 2 before the block.
    """

    spec: specification.RpeStdt

    @nn.compact
    def __call__(
        self, tokens: jax.Array, *, train: bool = False, capture_attention: bool = False
    ) -> tuple[jax.Array, dict[str, dict]]:
        spec, num_frames = self.spec, tokens.shape[1] - 1
        position = 'learned' if spec.temporal_pos == 'absolute' else 'none'
        tokens = PositionEmbedding(position, (num_frames,), name='posembed_input')(tokens)
        tokens = nn.Dropout(spec.dropout_rate)(tokens, deterministic=not train)
        rates = drop_path_rates(spec, spec.temporal_num_layers)
        places = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape[:2])
        captured = {}
        for layer in range(spec.temporal_num_layers):
            subsample = spec.subsample if layer in spec.subsample_layers else 'none'
            if subsample in ('max', 'avg', 'conv'):
                frames = self._pool(tokens[:, 1:], f'subsample_{layer}')
                tokens = jnp.concatenate([tokens[:, :1], frames], axis=1)
                # A pair takes the place of its first frame.
                places = jnp.concatenate([places[:, :1], places[:, 1::2]], axis=1)
            name = f'encoderblock_{layer}'
            block = TemporalBlock(
                spec, num_frames=num_frames, selects=subsample == 'topk', name=name
            )
            rate = None if rates is None else rates[layer]
            tokens, places, captured[name] = block(tokens, places, rate, train, capture_attention)
        tokens = layer_norm(spec, 'encoder_norm')(tokens)
        return tokens, captured if capture_attention else {}

    def _pool(self, frames: jax.Array, name: str) -> jax.Array:
        """Frames [b t d] to [b ⌈t/2⌉ d]; if t is odd, the last frame is pooled alone."""
        if self.spec.subsample == 'conv':
            return nn.Conv(
                frames.shape[-1],
                kernel_size=(3,),
                strides=(2,),
                padding=(1,),
                kernel_init=nn.initializers.xavier_uniform(),
                dtype=self.spec.dtype,
                name=name,
            )(frames)
        if self.spec.subsample == 'max':
            return nn.max_pool(frames, (2,), strides=(2,), padding='SAME')
        return nn.avg_pool(frames, (2,), (2,), padding='SAME', count_include_pad=False)


def select_frames(
    tokens: jax.Array, places: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Keeps the class token and the half of the frames that attend most selectively.

    A frame i attends selectively if its attention to the frames j varies much:
    `σ_i = std_j(mean over heads of A[i, j])`, without the column of the class token. Of t frames
    the ⌈t/2⌉ with the largest σ stay, in their order.

    Source: Ma 2024, equation 3.13, whose factor 1/t·√ does not change the order.

    Args:
        tokens: [b 1+t d], the class token first.
        places: int [b 1+t], the positions of the tokens in the whole sequence.
        weights: [b k 1+t 1+t], attention weights that add up to 1 along the last axis.

    Returns:
        Tokens [b 1+⌈t/2⌉ d] and places [b 1+⌈t/2⌉].
    """
    # The variance gives the same order as the standard deviation.
    spread = weights.mean(axis=1)[:, 1:, 1:].var(axis=-1)
    _, kept = lax.top_k(spread, -(-spread.shape[1] // 2))
    rows = jnp.pad(jnp.sort(kept, axis=1) + 1, ((0, 0), (1, 0)))
    return (
        jnp.take_along_axis(tokens, rows[:, :, None], axis=1),
        jnp.take_along_axis(places, rows, axis=1),
    )
