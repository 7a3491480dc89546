"""Running statistics of batch norms for a model."""

from collections.abc import Mapping

import flax.traverse_util
import jax

from vivit_jax.errors import UserError


def fit_statistics(fresh: dict, found: Mapping) -> dict:
    """Running statistics of batches: those that were found where they fit, else fresh ones.

    Args:
        fresh: those of the model, or only their shapes where none of them is to be kept.
        found: those of a file.

    Raises:
        UserError: of some there are neither.
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
