"""Names the action in videos, from Python.

    from vivit_jax.predictor import Predictor

    predict = Predictor('runs/demo')
    print(predict('video.mp4').top(5))
"""

import dataclasses
import functools
from pathlib import Path

import numpy as np

from vivit_jax.evaluation.views import softmax
from vivit_jax.heads import LabelNames, PerHead, by_head, map_heads
from vivit_jax.video.clips import read_view
from vivit_jax.video.open import open_video
from vivit_jax.video.sampling import clip_span


@dataclasses.dataclass(frozen=True)
class Window:
    """One clip of a video.

    Attributes:
        start_sec, end_sec: time of the first frame, and of the frame after the last.
        probabilities: float32 [classes] of each head.
    """

    start_sec: float
    end_sec: float
    probabilities: PerHead[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The answer of a model for a video.

    Attributes:
        probabilities: float32 [classes] of each head, the mean over the windows.
        features: float32 [d], the mean over the windows.
        windows: clips that cover the video, in order.
        label_names: the classes.
    """

    probabilities: PerHead[np.ndarray]
    features: np.ndarray
    windows: tuple[Window, ...]
    label_names: LabelNames

    def top(
        self, k: int, window: int | None = None, head: str | None = None
    ) -> list[tuple[str, float]]:
        """The k likeliest classes with their probabilities.

        Args:
            k: how many.
            window: one of `windows`; by default of the whole video.
            head: one of several heads; by default of the action: a class of each head, as in
                'cut + onion', with the product of their probabilities.
        """
        scores = self.probabilities if window is None else self.windows[window].probabilities
        names = by_head(self.label_names)
        heads = list(names) if head is None else [head]
        product = functools.reduce(np.multiply.outer, [by_head(scores)[name] for name in heads])
        best = np.argsort(-product, axis=None, kind='stable')[:k]
        found = []
        for classes in zip(*np.unravel_index(best, product.shape), strict=True):
            labels = [names[name][index] for name, index in zip(heads, classes, strict=True)]
            found.append((' + '.join(labels), float(product[classes])))
        return found


class Predictor:
    """A trained model with its preprocessing and its classes.

    Args:
        checkpoint: see `vivit_jax.load_checkpoint`.

    Raises:
        UserError: there is no checkpoint.
    """

    def __init__(self, checkpoint: str | Path):
        import jax

        from vivit_jax.evaluation.forward import create_forward
        from vivit_jax.parallel.mesh import fit_dtype
        from vivit_jax.weights.init_from import find_untrained_heads
        from vivit_jax.weights.load import load_checkpoint

        model, self._variables, self.preprocessing, self.label_names = load_checkpoint(checkpoint)
        self.untrained_heads = find_untrained_heads(self._variables['params'])
        [device] = jax.tree.leaves(self._variables)[0].devices()
        model = fit_dtype(model, device.platform)
        self._forward = jax.jit(create_forward(model, self.preprocessing))

    def __call__(self, video: str | Path) -> Prediction:
        """Predicts a video file, or a folder of frames.

        Windows of a strided clip's length follow each other until the end; the last one ends with
        the video. If clips are drawn from segments or units, one window covers the whole video.

        Raises:
            VideoError: the file cannot be used.
        """
        spec = self.preprocessing
        windows, features = [], []
        with open_video(video) as reader:
            times = reader.timestamps_sec
            frame_sec = (times[-1] - times[0]) / max(len(times) - 1, 1)
            for start, size in self._windows(len(reader)):
                [clip] = read_view(reader, spec, part=(start, size))
                output = self._forward(self._variables, clip)
                last = start + size - 1
                window = Window(
                    float(times[start]),
                    float(times[last] + frame_sec),
                    map_heads(lambda logits: softmax(np.asarray(logits)), output.logits),
                )
                windows.append(window)
                features.append(np.asarray(output.features))
        probabilities = map_heads(
            lambda *windows: np.mean(windows, axis=0), *(window.probabilities for window in windows)
        )
        return Prediction(
            probabilities,
            np.mean(features, axis=0),
            tuple(windows),
            self.label_names,
        )

    def _windows(self, length: int) -> list[tuple[int, int]]:
        """(first frame, frames) of every window."""
        spec = self.preprocessing
        span = clip_span(spec)
        if spec.short_video == 'smaller_stride':  # of a shorter window
            span = spec.num_frames * spec.frame_stride
        if spec.sampling != 'strided' or length <= span:
            return [(0, length)]
        starts = [*range(0, length - span, span), length - span]
        return [(start, span) for start in starts]
