"""Multiplies factors that stand around linear layers into their kernels and biases."""

import numpy as np

# The last part of the name of factors of LayerScale; the first parts are those of the layer whose
# results they multiply.
LAYER_SCALE = 'layer_scale'


def fold_layer_scale(params: dict[str, np.ndarray]):
    """Multiplies factors of LayerScale into the layers before them, in place.

    Factors that do not fit their layer stay.

    Source: Going deeper with Image Transformers (arXiv 2103.17239), equation 3.

    Args:
        params: float32 arrays by path with slashes: kernels [... d], biases [d] and factors [d].
    """
    for name in [name for name in params if name.endswith(f'/{LAYER_SCALE}')]:
        layer = name.removesuffix(LAYER_SCALE)
        arrays = [params.get(f'{layer}{leaf}') for leaf in ('kernel', 'bias')]
        if all(x is not None and x.shape[-1:] == params[name].shape for x in arrays):
            scale = params.pop(name)
            for array in arrays:
                array *= scale


def fold_colours(params: dict[str, np.ndarray], mean: tuple[float, ...], std: tuple[float, ...]):
    """Makes the first layer take pixels x in [-1, 1] instead of ((x + 1) / 2 - mean) / std.

    Args:
        params: `embedding/kernel` [h w c d] and `embedding/bias` [d], float32, which are replaced.
        mean, std: means and standard deviations of the c colours in [0, 1].
    """
    kernel = params['embedding/kernel'].astype(np.float64)
    mean, std = (np.asarray(x)[:, None] for x in (mean, std))
    offset = (kernel * ((0.5 - mean) / std)).sum((0, 1, 2))
    params['embedding/kernel'] = (kernel * (0.5 / std)).astype(np.float32)
    params['embedding/bias'] = (params['embedding/bias'] + offset).astype(np.float32)
