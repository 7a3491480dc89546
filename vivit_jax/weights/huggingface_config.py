"""Reads the parts of config.json that Hugging Face's image and video models share."""

from collections.abc import Mapping

import numpy as np

from vivit_jax.errors import UserError, list_some
from vivit_jax.heads import LabelNames, numbered_labels

# `hidden_act` to the keyword `gelu`.
GELUS = {
    'gelu': 'exact',
    **dict.fromkeys(('gelu_new', 'gelu_pytorch_tanh', 'gelu_fast', 'gelu_tanh'), 'tanh'),
    'quick_gelu': 'quick',
}

_RESCALE_FACTOR = 1 / 255  # of an image processor that does not tell one

# Values of `problem_type`.
SINGLE_LABEL, MULTI_LABEL = 'single_label_classification', 'multi_label_classification'


def label_names(config: Mapping, num_classes: int) -> LabelNames:
    """The class names in `id2label` of a classifier, or numbers as names if there are none.

    Raises:
        UserError: `id2label` names other classes than the classifier has.
    """
    names = config.get('id2label') or {}
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


def is_multi_label(config: Mapping, default: bool = False) -> bool:
    """Whether a classifier gives videos any number of labels, as its `problem_type` says.

    Args:
        config: the content of config.json.
        default: the answer if the config does not say.

    Raises:
        UserError: the model is no classifier.
    """
    problem = config.get('problem_type')
    if problem is None:
        return default
    if problem not in (SINGLE_LABEL, MULTI_LABEL):
        raise UserError(
            f'config.json: problem_type={problem!r}, but the models here are classifiers '
            f'({SINGLE_LABEL} or {MULTI_LABEL}): for a new classifier, take the files without this '
            'one'
        )
    return problem == MULTI_LABEL


def colours(config: Mapping) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Means and deviations of the colours red, green and blue in [0, 1]; None if not told.

    An image processor that leaves out a step (`do_rescale`, `do_normalize`) or scales by another
    `rescale_factor` has other means and deviations than it tells: the ones here give the pixels
    that it makes.

    Raises:
        UserError: one of them is no list of three numbers, or a deviation or the factor is not
            above zero.
    """
    timm = config.get('pretrained_cfg') or config
    mean = config.get('image_mean') or timm.get('mean')
    std = config.get('image_std') or timm.get('std')
    if config.get('do_normalize') is False:
        mean, std = (0.0,) * 3, (1.0,) * 3
    if not (mean and std):
        return None
    factor = 1.0
    if config.get('do_rescale', True):
        factor = config.get('rescale_factor', _RESCALE_FACTOR)
    try:
        # Pixels 255 u, for u in [0, 1], become (255 factor u - mean) / std.
        pair = np.stack([np.asarray(x, float).reshape(3) for x in (mean, std)])
        pair *= 1 / (255 * factor)
    except (TypeError, ValueError, ZeroDivisionError):
        pair = np.zeros((2, 3))
    if not np.isfinite(pair).all() or pair[1].min() <= 0:
        raise UserError(
            f'the configuration beside the weights has mean={mean}, std={std} and rescale_factor='
            f'{factor}: mean and std must be three numbers, and std and the factor above 0'
        )
    return tuple(tuple(x) for x in pair.tolist())
