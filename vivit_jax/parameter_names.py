"""The names of parameters."""

import re

import jax


def parameter_names(params: dict) -> dict:
    """A tree of names such as `'Transformer/encoderblock_0/LayerNorm_0/scale'`."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: jax.tree_util.keystr(path, simple=True, separator='/'), params
    )


def name_in_stream(name: str) -> str:
    """A parameter's name in the model for RGB or for depth, if both are parts of a `Fusion`."""
    return re.sub('^(rgb|depth)/', '', name)
