"""Layer-wise decay of the learning rate."""

import re

import jax

from vivit_jax.parameter_names import name_in_stream, parameter_names

_HEAD = ('output_projection', 'attention_pool')
_BLOCK = re.compile(r'(\w+)/(?:encoderblock|subsample)_(\d+)/')


def layer_scales(params: dict, decay: float) -> dict:
    """A tree of factors on the learning rate: `decay` to the power of the layers above.

    The head has the factor 1, with its pooling by attention. The last block has the factor `decay`,
    the block before it `decay**2`, and so on. The positions and the class token of an encoder count
    as one layer below its first block, and its final norm belongs to its last block. The tokenizer
    is the lowest layer. The layers of a model for RGB and of one for depth count alike.

    Source: BEiT (arXiv 2106.08254), appendix; ULMFiT (arXiv 1801.06146), section 3.2.
    """
    names = jax.tree.map(name_in_stream, parameter_names(params))
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
