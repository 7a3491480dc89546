"""Which axes of a kernel are the rows and the columns of a matrix, for Muon."""

import jax
from optax.contrib import MuonDimensionNumbers

_INPUTS, _OUTPUTS = ('query', 'key', 'value'), ('out',)
_ENDS = ('embedding', 'output_projection')


def hidden_matrices(params: dict) -> dict:
    """A tree of the axes in which Muon sees a matrix; None: it leaves the parameter to Adam.

    Matrices are the kernels of MLPs and projections, and of attention with its heads as one axis.
    Embeddings, classifiers and convolutions are none, and neither is what is no kernel.

    Source: K. Jordan, Muon (kellerjordan.github.io/posts/muon), which leaves the first and the last
    layer to Adam.
    """

    def find(path: tuple, x: jax.Array) -> MuonDimensionNumbers | None:
        layer, name = path[-2].key if len(path) > 1 else '', path[-1].key
        if name != 'kernel' or layer.startswith(_ENDS):
            return None
        if layer in _INPUTS:  # [d k e]
            return MuonDimensionNumbers(0, (1, 2))
        if layer in _OUTPUTS:  # [k e d]
            return MuonDimensionNumbers((0, 1), 2)
        return MuonDimensionNumbers() if x.ndim == 2 else None

    return jax.tree_util.tree_map_with_path(find, params)
