"""An encoder over frames that some of its layers make fewer."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from vivit_jax.layers.blocks import EncoderBlock
from vivit_jax.layers.encoder import Encoder


class SelectingBlock(EncoderBlock):
    """A block that may keep, after its attention, the frames that attend most selectively.

    Attributes:
        selects: whether it does; see `select_frames`.
    """

    selects: bool = False

    @nn.compact
    def __call__(
        self,
        tokens: jax.Array,
        places: jax.Array,
        drop_path_rate: jax.Array | None = None,
        train: bool = False,
        capture_attention: bool = False,
    ) -> tuple[jax.Array, jax.Array, dict[str, dict[str, jax.Array]]]:
        """Maps tokens [b 1+t d], a class token first, at places int [b 1+t], to as many or fewer.

        Returns:
            The tokens, their places, and, if captured, attention weights by attention and axis.
        """
        tokens, captured = self._attend(
            tokens, drop_path_rate, train, capture_attention or self.selects, places
        )
        if self.selects:
            (by_axis,) = captured.values()
            (weights,) = by_axis.values()
            # Only queries are dropped: keys and values were there for those that are kept.
            tokens, places = select_frames(tokens, places, weights)
        tokens = self._feed_forward(tokens, drop_path_rate, train)
        return tokens, places, captured if capture_attention else {}


class SelectiveEncoder(Encoder):
    """An encoder of `SelectingBlock` for a class token and frames, [b 1+t d].

    Attributes:
        subsample: how t frames become ⌈t/2⌉: `'topk'`, within the block, see `select_frames`; at
            its input `'max'` or `'avg'` of pairs, or `'conv'`, a convolution of stride 2; `'none'`.
        subsample_layers: in which blocks, counted from zero.
    """

    subsample: str = 'topk'
    subsample_layers: tuple[int, ...] = ()

    def _loop(
        self, tokens: jax.Array, rates: jax.Array | None, train: bool, capture_attention: bool
    ) -> tuple[jax.Array, dict]:
        places = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape[:2])
        captured = {}
        for layer in range(self.num_layers):
            subsample = self.subsample if layer in self.subsample_layers else 'none'
            if subsample in ('max', 'avg', 'conv'):
                frames = self._pool(tokens[:, 1:], subsample, name=f'subsample_{layer}')
                tokens = jnp.concatenate([tokens[:, :1], frames], axis=1)
                # Those of the first frame of each pair.
                places = jnp.concatenate([places[:, :1], places[:, 1::2]], axis=1)
            name = f'encoderblock_{layer}'
            tokens, places, captured[name] = self.block(selects=subsample == 'topk', name=name)(
                tokens, places, None if rates is None else rates[layer], train, capture_attention
            )
        return tokens, captured

    def _pool(self, frames: jax.Array, kind: str, name: str) -> jax.Array:
        """Frames [b t d] to [b ⌈t/2⌉ d]; the last of an odd number is a pair by itself."""
        if kind == 'conv':
            return nn.Conv(
                frames.shape[-1],
                kernel_size=(3,),
                strides=(2,),
                padding=(1,),
                kernel_init=nn.initializers.xavier_uniform(),
                dtype=self.block(parent=None).dtype,
                name=name,
            )(frames)
        if kind == 'max':
            return nn.max_pool(frames, (2,), strides=(2,), padding='SAME')
        return nn.avg_pool(frames, (2,), (2,), padding='SAME', count_include_pad=False)


def select_frames(
    tokens: jax.Array, places: jax.Array, weights: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Keeps the class token and the frames whose attention to frames differs most among them.

    `σ_i = std_j(mean over heads of A[i, j])`, with the column of the class token left out; of t
    frames the ⌈t/2⌉ of largest σ stay, in their order.

    Source: the thesis on RPE-STDT, equation 3.13, whose factor 1/t·√ does not change the order.

    Args:
        tokens: [b 1+t d], the class token first.
        places: int [b 1+t], picked from likewise.
        weights: [b k 1+t 1+t], attention weights that add up to 1 along the last axis.

    Returns:
        Tokens [b 1+⌈t/2⌉ d] and places [b 1+⌈t/2⌉].
    """
    # The variance has the order of its root.
    spread = weights.mean(axis=1)[:, 1:, 1:].var(axis=-1)
    _, kept = lax.top_k(spread, -(-spread.shape[1] // 2))
    rows = jnp.pad(jnp.sort(kept, axis=1) + 1, ((0, 0), (1, 0)))
    return (
        jnp.take_along_axis(tokens, rows[:, :, None], axis=1),
        jnp.take_along_axis(places, rows, axis=1),
    )
