"""The names of parameters, and how fast each layer is trained."""

import re

import jax

_HEAD = 'output_projection'
_BLOCK = re.compile(r'(\w+)/(?:encoderblock|subsample)_(\d+)/')


def parameter_names(params: dict) -> dict:
    """A tree of names such as `'Transformer/encoderblock_0/LayerNorm_0/scale'`."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: jax.tree_util.keystr(path, simple=True, separator='/'), params
    )


def layer_scales(params: dict, decay: float) -> dict:
    """A tree of factors on the learning rate: `decay` to the power of the layers above.

    The head has 1, the last block `decay`, the one before it its square; tokenizer and positions
    follow below the first block. What stands before an encoder (positions, class token) counts as
    the layer under its first block, its final norm as its last block.

    Source: BEiT (arXiv 2106.08254), appendix; ULMFiT (arXiv 1801.06146), section 3.2.
    """
    names = parameter_names(params)
    sizes = {}
    for name in jax.tree.leaves(names):
        if block := _BLOCK.match(name):
            sizes[block[1]] = max(sizes.get(block[1], 0), int(block[2]) + 1)
    first, total = {}, 0
    for encoder in sorted(sizes):  # the spatial one comes before the temporal one
        first[encoder], total = total, total + sizes[encoder]

    def depth(name: str) -> int:
        if name.startswith(_HEAD):
            return total + 1
        if block := _BLOCK.match(name):
            return first[block[1]] + int(block[2]) + 1
        encoder = name.split('/')[0].removeprefix('cls_')
        if encoder not in first:
            return 0
        return first[encoder] + (sizes[encoder] if '/encoder_norm/' in name else 0)

    return jax.tree.map(lambda name: decay ** (total + 1 - depth(name)), names)
