"""A stack of transformer blocks."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from vivit_jax.layers.position import PositionEmbedding

# What the forward pass keeps for the backward pass; 'none': no rematerialisation, it keeps all.
REMAT_POLICIES = {
    'block': None,  # the input of every block
    'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,  # and all projections
}


class Encoder(nn.Module):
    """Positions, dropout, `num_layers` blocks and, for pre-norm blocks, a final LayerNorm.

    Block l of L drops a residual branch of a clip with probability
    `drop_path_rate * l / max(L - 1, 1)`.

    Attributes:
        block: makes a block, such as a `functools.partial` of `EncoderBlock`.
        num_layers: L.
        grid, position, token_axes: see `PositionEmbedding`.
        dropout_rate: after the positions.
        drop_path_rate: stochastic depth of the last block.
        remat: `'none'`, or a name of `REMAT_POLICIES`.
        scan_layers: compiles one block and loops over it, which shortens compilation. The
            parameters remain a tree per block, and are stacked for each forward pass.
        has_final_norm: whether the LayerNorm is there.
    """

    block: Callable[..., nn.Module]
    num_layers: int
    grid: tuple[int, ...]
    position: str = 'learned'
    token_axes: int = 1
    dropout_rate: float = 0.0
    drop_path_rate: float = 0.0
    remat: str = 'none'
    scan_layers: bool = False
    has_final_norm: bool = True

    @nn.compact
    def __call__(
        self, tokens: jax.Array, *, train: bool = False, capture_attention: bool = False
    ) -> tuple[jax.Array, dict[str, dict]]:
        """Maps tokens [b ... n d], or [b ... t n d], to the same shape.

        Returns:
            The tokens, and, if captured, attention weights by block, attention and axis.
        """
        tokens = PositionEmbedding(
            self.position, self.grid, self.token_axes, name='posembed_input'
        )(tokens)
        tokens = nn.Dropout(self.dropout_rate)(tokens, deterministic=not train)
        scans = self.scan_layers and self.num_layers and not self.is_initializing()
        run = self._scan if scans else self._loop
        rates = None
        if self.drop_path_rate:
            rates = self.drop_path_rate * jnp.arange(self.num_layers) / max(self.num_layers - 1, 1)
        tokens, captured = run(tokens, rates, train, capture_attention)
        if self.has_final_norm:
            block = self.block(parent=None)
            norm = nn.LayerNorm(
                epsilon=block.layer_norm_eps, dtype=block.dtype, name='encoder_norm'
            )
            tokens = norm(tokens)
        return tokens, captured if capture_attention else {}

    def _loop(
        self, tokens: jax.Array, rates: jax.Array | None, train: bool, capture_attention: bool
    ) -> tuple[jax.Array, dict]:
        def run(block: nn.Module, tokens: jax.Array, rate: jax.Array | None):
            return block(tokens, rate, train, capture_attention)

        if self.remat != 'none':
            run = nn.remat(run, policy=REMAT_POLICIES[self.remat])
        captured = {}
        for layer in range(self.num_layers):
            rate = None if rates is None else rates[layer]
            name = f'encoderblock_{layer}'
            tokens, captured[name] = run(self.block(name=name), tokens, rate)
        return tokens, captured

    def _scan(
        self, tokens: jax.Array, rates: jax.Array | None, train: bool, capture_attention: bool
    ) -> tuple[jax.Array, dict]:
        names = [f'encoderblock_{layer}' for layer in range(self.num_layers)]
        stacked = {
            collection: jax.tree.map(lambda *x: jnp.stack(x), *map(variables.get, names))
            for collection, variables in self.variables.items()
            if collection in ('params', 'batch_stats')
        }
        keys = None
        if self.has_rng('dropout'):
            keys = jax.random.split(self.make_rng('dropout'), self.num_layers)
        block = self.block(parent=None)

        def run(tokens: jax.Array, layer: tuple):
            variables, rate, key = layer
            (tokens, captured), changed = block.apply(
                variables,
                tokens,
                rate,
                train,
                capture_attention,
                rngs={} if key is None else {'dropout': key},
                mutable=['batch_stats'] if train else [],
            )
            return tokens, (captured, changed)

        if self.remat != 'none':
            run = jax.checkpoint(run, policy=REMAT_POLICIES[self.remat], prevent_cse=False)
        tokens, results = lax.scan(run, tokens, (stacked, rates, keys))
        captured = {}
        for layer, name in enumerate(names):
            captured[name], changed = jax.tree.map(lambda x, i=layer: x[i], results)
            for collection, values in changed.items():
                self.put_variable(collection, name, values)
        return tokens, captured
