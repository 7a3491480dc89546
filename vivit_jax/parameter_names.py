"""The names of parameters."""

import jax


def parameter_names(params: dict) -> dict:
    """A tree of names such as `'Transformer/encoderblock_0/LayerNorm_0/scale'`."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: jax.tree_util.keystr(path, simple=True, separator='/'), params
    )
