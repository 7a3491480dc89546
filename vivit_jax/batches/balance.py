"""Draws videos of rare classes more often."""

import collections
from collections.abc import Sequence

import grain
import numpy as np

from vivit_jax.annotations.dataset import LabeledVideo, class_indices
from vivit_jax.heads import by_head


class DrawBalanced(grain.transforms.RandomMap):
    """The numbers 0 … videos - 1 of an epoch, in any order, to videos that are drawn with weights.

    A video of a class with n videos has the weight n ** -balance, and all weights together are as
    many as there are videos. With the videos side by side, each as wide as its weight, the number k
    draws a place between k and k + 1. So every class gets its part of an epoch, but for one or two
    draws, and what is drawn depends on nothing but the number and its random generator.

    Of several heads, the classes of the first count. Of several labels of a video, the rarest
    counts, as in LVIS (arXiv 1908.03195); videos without a label count as a class.

    Args:
        videos: of the training.
        balance: from 0, all videos equally often, to 1, all classes equally often.
    """

    def __init__(self, videos: Sequence[LabeledVideo], balance: float):
        labels = [class_indices(next(iter(by_head(video.label).values()))) for video in videos]
        counts = collections.Counter(index for label in labels for index in label or (-1,))
        rarest = np.array([min(label or (-1,), key=lambda x: (counts[x], x)) for label in labels])
        weights = np.array([float(counts[index]) ** -balance for index in rarest])
        self._order = np.argsort(rarest, kind='stable')
        self._edges = np.cumsum(weights[self._order]) * (len(videos) / weights.sum())

    def random_map(self, number: int, rng: np.random.Generator) -> int:
        place = np.searchsorted(self._edges, number + rng.random(), side='right')
        return int(self._order[min(place, len(self._order) - 1)])
