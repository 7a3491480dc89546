"""Runs a stack of equal blocks, one after the other or as a loop that is compiled once."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

# Which activations the forward pass keeps for the backward pass; with 'none' it keeps all.
REMAT_POLICIES = {
    'block': None,  # the input of every block
    'dots': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,  # also all projections
}


def rematerialize(run: Callable, remat: str) -> Callable:
    """A function of a module and arrays that computes its activations twice to save memory.

    Args:
        run: the function; within a compact method.
        remat: a key of `REMAT_POLICIES`, or `'none'`, which returns the function itself.
    """
    return run if remat == 'none' else nn.remat(run, policy=REMAT_POLICIES[remat])


def run_blocks(
    encoder: nn.Module,
    names: Sequence[str],
    tokens: jax.Array,
    rates: jax.Array | None,
    mode: dict[str, bool],
) -> tuple[jax.Array, dict]:
    """Runs the blocks of an encoder; call it within the encoder's compact method.

    With `scan_layers` all layers share one compiled block, which shortens compilation. The
    parameters remain a tree per block, and are stacked for each forward pass.

    Args:
        encoder: a module with `block`, which makes a block, and `spec`, with `remat` and
            `scan_layers`.
        names: the names of the blocks.
        tokens: [b ... d].
        rates: drop path rates [blocks], or None.
        mode: `train` and `capture_attention`.

    Returns:
        The tokens, and the attention weights that each block captured, by its name.
    """
    spec = encoder.spec
    if spec.scan_layers and names and not encoder.is_initializing():
        return _scan(encoder, names, tokens, rates, mode)

    def run(block: nn.Module, tokens: jax.Array, rate: jax.Array | None):
        return block(tokens, rate, **mode)

    run = rematerialize(run, spec.remat)
    captured = {}
    for layer, name in enumerate(names):
        rate = None if rates is None else rates[layer]
        tokens, captured[name] = run(encoder.block(spec, name=name), tokens, rate)
    return tokens, captured


def _scan(
    encoder: nn.Module,
    names: Sequence[str],
    tokens: jax.Array,
    rates: jax.Array | None,
    mode: dict[str, bool],
) -> tuple[jax.Array, dict]:
    stacked = {
        collection: jax.tree.map(lambda *x: jnp.stack(x), *map(variables.get, names))
        for collection, variables in encoder.variables.items()
        if collection in ('params', 'batch_stats')
    }
    keys = None
    if encoder.has_rng('dropout'):
        keys = jax.random.split(encoder.make_rng('dropout'), len(names))
    block = encoder.block(encoder.spec, parent=None)

    def run(tokens: jax.Array, layer: tuple):
        variables, rate, key = layer
        (tokens, captured), changed = block.apply(
            variables,
            tokens,
            rate,
            **mode,
            rngs={} if key is None else {'dropout': key},
            mutable=['batch_stats'] if mode['train'] else [],
        )
        return tokens, (captured, changed)

    if encoder.spec.remat != 'none':
        policy = REMAT_POLICIES[encoder.spec.remat]
        run = jax.checkpoint(run, policy=policy, prevent_cse=False)
    tokens, results = lax.scan(run, tokens, (stacked, rates, keys))
    captured = {}
    for layer, name in enumerate(names):
        captured[name], changed = jax.tree.map(lambda x, i=layer: x[i], results)
        for collection, values in changed.items():
            encoder.put_variable(collection, name, values)
    return tokens, captured
