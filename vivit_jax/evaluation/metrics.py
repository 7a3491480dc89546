"""Accuracies and losses from scores and labels."""

import functools
from collections.abc import Sequence

import numpy as np

from vivit_jax.evaluation.views import log_sigmoid, softmax
from vivit_jax.heads import PerHead, by_head


def classification_metrics(
    scores: PerHead[np.ndarray], labels: PerHead[np.ndarray], failed: np.ndarray | None = None
) -> dict[str, float]:
    """Loss, top-1, top-5 and mean class accuracy, accuracies as fractions.

    Among equal scores the label comes last, so that constant scores count as wrong.

    Args:
        scores: logits, or logarithms of probabilities, [videos classes] of each head.
        labels: [videos] of each head.
        failed: bool [videos], videos without an answer: wrong in every accuracy, and left out of
            the loss.

    Returns:
        `loss`, `acc1`, `acc5` and `mean_class_acc`, over the classes that occur. Of several heads
        these are `<head>/loss` and so on; then `loss` is the mean over the heads, and `acc1` and
        `acc5` count actions: an action is a class of each head, and its score is the product of
        their probabilities.
    """
    scores, labels = by_head(scores), by_head(labels)
    if failed is None:
        failed = np.zeros(len(next(iter(labels.values()))), bool)
    of_heads = {head: _head_metrics(scores[head], labels[head], failed) for head in labels}
    rank = _rank([scores[head] for head in labels], list(labels.values()))
    metrics = {
        'loss': float(np.mean([found['loss'] for found in of_heads.values()])),
        'acc1': float(((rank < 1) & ~failed).mean()),
        'acc5': float(((rank < 5) & ~failed).mean()),
    }
    for head, found in of_heads.items():
        metrics |= {f'{head}/{name}' if head else name: value for name, value in found.items()}
    return metrics


def multi_label_metrics(
    scores: np.ndarray, labels: np.ndarray, failed: np.ndarray
) -> dict[str, float]:
    """Loss and mean average precision of videos with any number of labels.

    Args:
        scores: logits, [videos classes].
        labels: [videos classes], 1 for each class of a video and 0 for the others.
        failed: bool [videos], videos without an answer: left out of the loss, see also
            `average_precisions`.

    Returns:
        `loss`, the binary cross-entropy, mean over videos and classes; and `map`, the mean of
        `average_precisions` over the classes that have any video.
    """
    scores = np.float64(scores)
    losses = -np.where(labels > 0, log_sigmoid(scores), log_sigmoid(-scores))[~failed]
    return {
        'loss': float(losses.mean()) if losses.size else float('nan'),
        'map': float(np.nanmean(average_precisions(scores, labels, failed))),
    }


def average_precisions(scores: np.ndarray, labels: np.ndarray, failed: np.ndarray) -> np.ndarray:
    """Average precision of each class, float64 [classes]; NaN of a class without any video.

    With the videos in the order of their scores, it is the sum over thresholds of the precision
    times the increase of the recall. Videos of equal scores are found together. Videos that failed
    are found by no threshold.

    Args: see `multi_label_metrics`.
    """

    def one(scores: np.ndarray, is_positive: np.ndarray) -> float:
        count = is_positive.sum()
        if not count:
            return float('nan')
        order = np.argsort(-scores[~failed], kind='stable')
        scores, is_positive = scores[~failed][order], is_positive[~failed][order]
        last = np.flatnonzero(np.diff(scores, append=np.nan))  # of each group of equal scores
        found = is_positive.cumsum()[last]
        return float((np.diff(found, prepend=0) / count * (found / (last + 1))).sum())

    return np.array([one(x, y) for x, y in zip(scores.T, labels.T > 0, strict=True)])


def _head_metrics(scores: np.ndarray, labels: np.ndarray, failed: np.ndarray) -> dict[str, float]:
    rank = _rank([scores], [labels])
    top1, top5 = (rank < 1) & ~failed, (rank < 5) & ~failed
    log_probabilities = np.log(np.maximum(softmax(scores), np.finfo(np.float32).tiny))
    loss = -np.take_along_axis(log_probabilities, labels[:, None], axis=1)[~failed, 0]
    return {
        'loss': float(loss.mean()) if loss.size else float('nan'),
        'acc1': float(top1.mean()),
        'acc5': float(top5.mean()),
        'mean_class_acc': float(np.mean([top1[labels == c].mean() for c in np.unique(labels)])),
    }


def _rank(scores: Sequence[np.ndarray], labels: Sequence[np.ndarray]) -> np.ndarray:
    """How many combinations of one class per head come before the true one: int [videos].

    Sums of scores rank like products of probabilities, as within a head a score is the logarithm
    of a probability but for a constant.
    """
    ranks = []
    for video in range(len(labels[0])):  # 97 verbs x 300 nouns: 29,100 sums for each
        sums = functools.reduce(np.add.outer, [np.float64(head[video]) for head in scores])
        of_label = sums[tuple(head[video] for head in labels)]
        ranks.append((~(sums < of_label)).sum() - 1)
    return np.array(ranks)
