"""Numbers from scores and labels."""

import numpy as np

from vivit_jax.evaluation.views import softmax


def classification_metrics(
    scores: np.ndarray, labels: np.ndarray, failed: np.ndarray | None = None
) -> dict[str, float]:
    """Loss, top-1, top-5 and mean class accuracy, accuracies as fractions.

    Among equal scores the label comes last, so that constant scores count as wrong.

    Args:
        scores: logits, or logarithms of probabilities, [videos classes].
        labels: [videos].
        failed: bool [videos], videos without an answer: wrong in every accuracy, and left out of
            the loss.

    Returns:
        `loss`, `acc1`, `acc5` and `mean_class_acc`, over the classes that occur.
    """
    failed = np.zeros(len(labels), bool) if failed is None else failed
    of_label = np.take_along_axis(scores, labels[:, None], axis=1)
    rank = (~(scores < of_label)).sum(axis=1) - 1
    top1, top5 = (rank < 1) & ~failed, (rank < 5) & ~failed
    log_probabilities = np.log(np.maximum(softmax(scores), np.finfo(np.float32).tiny))
    loss = -np.take_along_axis(log_probabilities, labels[:, None], axis=1)[~failed, 0]
    return {
        'loss': float(loss.mean()) if loss.size else float('nan'),
        'acc1': float(top1.mean()),
        'acc5': float(top5.mean()),
        'mean_class_acc': float(np.mean([top1[labels == c].mean() for c in np.unique(labels)])),
    }
