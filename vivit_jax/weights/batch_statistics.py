"""Running statistics of batch norms for a model."""

from collections.abc import Mapping

import flax.traverse_util
import jax

from vivit_jax.errors import UserError


def fit_statistics(fresh: dict, found: Mapping) -> dict:
    """Takes each running statistic from a file if it is there and fits, else the fresh one.

    Args:
        fresh: the model's initial statistics. Their shapes are enough if none is to be kept.
        found: the statistics in the file.

    Raises:
        UserError: a statistic is neither in the file nor given as a fresh value.
    """
    fresh, found = (flax.traverse_util.flatten_dict(tree, sep='/') for tree in (fresh, found))
    result = {
        name: found[name] if name in found and found[name].shape == value.shape else value
        for name, value in fresh.items()
    }
    missing = [name for name, x in result.items() if isinstance(x, jax.ShapeDtypeStruct)]
    if missing:
        raise UserError(
            f'the weights lack the running statistics {", ".join(missing)}: take weights of the '
            'same model and settings, or start a training from these'
        )
    return flax.traverse_util.unflatten_dict(result, sep='/')
