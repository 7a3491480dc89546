"""Several clips of one video, and one answer from them."""

import re

import numpy as np

from vivit_jax.errors import UserError


def parse_views(views: str, key: str = 'eval.views') -> tuple[int, int]:
    """Turns `'4x3'`, the value of a key or flag, into (temporal, spatial) views.

    Raises:
        UserError: it does not have that form.
    """
    match = re.fullmatch(r'([1-9]\d*)x([1-9]\d*)', views)
    if not match:
        raise UserError(
            f"{key}={views!r} must be temporal x spatial views of a video, such as '4x3'"
        )
    return int(match[1]), int(match[2])


def check_merge(merge: str):
    """Raises a UserError unless `merge_views` knows the word."""
    if merge not in ('logits', 'probabilities'):
        raise UserError(f"eval.merge={merge!r} must be 'logits' or 'probabilities'")


def merge_views(logits: np.ndarray, merge: str, is_multi_label: bool = False) -> np.ndarray:
    """Averages over the views of every video.

    Args:
        logits: [videos views classes].
        merge: `'logits'`, or `'probabilities'`.
        is_multi_label: whether each class has a probability of its own, see `probabilities`.

    Returns:
        Scores [videos classes]. Their `probabilities` are the probabilities of the mean logits, or
        the mean probabilities.
    """
    check_merge(merge)
    if merge == 'logits':
        return logits.mean(axis=1)
    if is_multi_label:  # in logarithms, so that no two scores become equal near 0 or 1
        yes, no = (np.logaddexp.reduce(log_sigmoid(x), axis=1) for x in (logits, -logits))
        return yes - no
    return np.log(np.maximum(softmax(logits).mean(axis=1), np.finfo(np.float32).tiny))


def probabilities(logits: np.ndarray, is_multi_label: bool) -> np.ndarray:
    """Probabilities of the classes, over the last axis.

    Args:
        logits: [... classes].
        is_multi_label: whether any number of classes are true, and each probability is a sigmoid;
            otherwise one class is true, and the probabilities are a softmax.
    """
    return np.exp(log_sigmoid(logits)) if is_multi_label else softmax(logits)


def log_sigmoid(logits: np.ndarray) -> np.ndarray:
    """`log(1 / (1 + exp(-logits)))`, also where the sigmoid is rounded to 0 or 1."""
    return -np.logaddexp(0, -logits)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)
