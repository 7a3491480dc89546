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


def merge_views(logits: np.ndarray, merge: str) -> np.ndarray:
    """Averages over the views of every video.

    Args:
        logits: [videos views classes].
        merge: `'logits'`, or `'probabilities'`: their softmax.

    Returns:
        Scores [videos classes]: logits, or the logarithm of the mean probabilities.
    """
    check_merge(merge)
    if merge == 'logits':
        return logits.mean(axis=1)
    return np.log(np.maximum(softmax(logits).mean(axis=1), np.finfo(np.float32).tiny))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities over the last axis."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)
