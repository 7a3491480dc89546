"""The answer of a model for a video and for its windows."""

import dataclasses
import functools

import numpy as np

from vivit_jax.heads import LabelNames, PerHead, by_head


@dataclasses.dataclass(frozen=True)
class Window:
    """A part of a video that has an answer of its own, from one clip.

    Attributes:
        start_sec, end_sec: its time in the video.
        probabilities: float32 [classes] of each head.
        features: float32 [d].
        dropped: windows before this one that a live stream left out, because the model was busy.
    """

    start_sec: float
    end_sec: float
    probabilities: PerHead[np.ndarray]
    features: np.ndarray
    dropped: int = 0


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The answer of a model for a video.

    Attributes:
        probabilities: float32 [classes] of each head, the mean over the windows.
        features: float32 [d], the mean over the windows.
        windows: the parts of the video that were looked at, in order.
        label_names: the classes.
        notes: what to know about the answer: that a part of the video cannot be read, or that the
            video is much longer than the training videos.
        is_multi_label: whether a video has any number of labels; each class then has a probability
            of its own, and they do not sum to 1.
    """

    probabilities: PerHead[np.ndarray]
    features: np.ndarray
    windows: tuple[Window, ...]
    label_names: LabelNames
    notes: tuple[str, ...] = ()
    is_multi_label: bool = False

    def labels(self, window: int | None = None) -> list[tuple[str, float]]:
        """The labels of the video with their probabilities, the likeliest first.

        If a video has any number of labels, they are all classes with a probability above 0.5,
        perhaps none; otherwise the likeliest class.

        Args:
            window: one of `windows`; by default the whole video.
        """
        return chosen_labels(self._scores(window), self.label_names, self.is_multi_label)

    def top(
        self, k: int, window: int | None = None, head: str | None = None
    ) -> list[tuple[str, float]]:
        """The k likeliest classes with their probabilities, fewer if there are fewer classes.

        Args:
            k: how many.
            window: one of `windows`; by default of the whole video.
            head: see `top_labels`.
        """
        return top_labels(self._scores(window), self.label_names, k, head)

    def _scores(self, window: int | None) -> PerHead[np.ndarray]:
        return self.probabilities if window is None else self.windows[window].probabilities


def chosen_labels(
    probabilities: PerHead[np.ndarray], label_names: LabelNames, is_multi_label: bool
) -> list[tuple[str, float]]:
    """See `Prediction.labels`."""
    if not is_multi_label:
        return top_labels(probabilities, label_names, 1)
    return top_labels(probabilities, label_names, int((probabilities > 0.5).sum()))


def top_labels(
    probabilities: PerHead[np.ndarray], label_names: LabelNames, k: int, head: str | None = None
) -> list[tuple[str, float]]:
    """The k likeliest classes with their probabilities.

    Args:
        probabilities: [classes] of each head.
        label_names: the classes.
        k: how many.
        head: one of several heads; by default of the action: a class of each head, as in
            'cut + onion', with the product of their probabilities.
    """
    names, scores = by_head(label_names), by_head(probabilities)
    heads = list(names) if head is None else [head]
    product = functools.reduce(np.multiply.outer, [scores[name] for name in heads])
    best = np.argsort(-product, axis=None, kind='stable')[:k]
    found = []
    for classes in zip(*np.unravel_index(best, product.shape), strict=True):
        labels = [names[name][index] for name, index in zip(heads, classes, strict=True)]
        found.append((' + '.join(labels), float(product[classes])))
    return found
