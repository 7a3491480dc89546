"""Reads the parts of config.json that Hugging Face's image and video models share."""

from collections.abc import Mapping

import numpy as np

from vivit_jax.errors import UserError, list_some
from vivit_jax.heads import LabelNames, numbered_labels

# `hidden_act` to the keyword `gelu`: all but 'gelu' approximate with a hyperbolic tangent.
GELUS = {'gelu': 'exact', 'gelu_new': 'tanh', 'gelu_pytorch_tanh': 'tanh', 'gelu_fast': 'tanh'}


def label_names(config: Mapping, num_classes: int) -> LabelNames:
    """The class names in `id2label` of a classifier, or numbers as names if there are none.

    Raises:
        UserError: `id2label` names other classes than the classifier has, or the classes do not
            exclude each other.
    """
    problem, names = config.get('problem_type'), config.get('id2label') or {}
    if problem not in (None, 'single_label_classification'):
        raise UserError(
            f'config.json: problem_type={problem!r}, but the models here choose one class of '
            'several that exclude each other: for a new classifier, take the files without this one'
        )
    numbers = numbered_labels(num_classes)
    if not names:
        return numbers
    if not isinstance(names, Mapping) or names.keys() != set(numbers):
        raise UserError(
            f'config.json: id2label must name the {num_classes} classes "0" to '
            f'"{num_classes - 1}", each once, and names {list_some(list(map(str, names)))}: '
            'mend or remove it'
        )
    return tuple(str(names[number]) for number in numbers)


def colours(config: Mapping) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Means and deviations of the colours red, green and blue in [0, 1]; None if not told.

    Raises:
        UserError: one of them is no list of three numbers, or a deviation is zero.
    """
    timm = config.get('pretrained_cfg') or config
    mean = config.get('image_mean') or timm.get('mean')
    std = config.get('image_std') or timm.get('std')
    if not (mean and std):
        return None
    try:
        pair = tuple(tuple(np.asarray(x, float).reshape(3).tolist()) for x in (mean, std))
    except (TypeError, ValueError):
        pair = ()
    if not pair or not np.isfinite(pair).all() or min(pair[1]) <= 0:
        raise UserError(
            f'the configuration beside the weights has mean={mean} and std={std}, and each must be '
            'three numbers, std above 0'
        )
    return pair
