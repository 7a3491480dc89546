"""Names the action in videos.

    python -m vivit_jax.predict --checkpoint=runs/demo VIDEO [VIDEO ...]

From Python:

    from vivit_jax.predict import Predictor
    predict = Predictor('runs/demo')
    print(predict('video.mp4').top(5))
"""

import dataclasses
import functools
import json
import sys
from pathlib import Path

import numpy as np
from absl import flags

from vivit_jax import terminal
from vivit_jax.errors import UserError
from vivit_jax.evaluation.views import softmax
from vivit_jax.heads import LabelNames, PerHead, by_head, head_names, map_heads
from vivit_jax.video.clips import read_view
from vivit_jax.video.frame_reader import VideoError
from vivit_jax.video.open import open_video
from vivit_jax.video.sampling import clip_span

_CHECKPOINT = flags.DEFINE_string(
    'checkpoint', None, 'Run folder, or whatever vivit_jax.convert reads.'
)
_TOP_K = flags.DEFINE_integer('top_k', 5, 'Labels per video.', lower_bound=1)
_JSON = flags.DEFINE_bool('json', False, 'Print one JSON object per video.')
_FEATURES = flags.DEFINE_string('features', None, 'An .npz file for the features of the videos.')


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


def main(videos: list[str]) -> int:
    """Predicts every video; returns 1 if one of them could not be used."""
    if not videos:
        raise UserError('name at least one video file')
    from vivit_jax.parallel.compilation_cache import use_compilation_cache

    use_compilation_cache()
    predictor = Predictor(_CHECKPOINT.value)
    if predictor.untrained_heads and not _FEATURES.value:
        raise UserError(
            f'{_CHECKPOINT.value} has a classifier that was never trained, all zero: it gives '
            'every video the same answer. Fine-tune it, or ask for --features'
        )
    failed, features = 0, {}
    for video in videos:
        try:
            prediction = predictor(video)
        except VideoError as error:
            failed += 1
            if _JSON.value:
                print(json.dumps({'video': video, 'error': str(error)}), flush=True)
            else:
                print(f'Error: {error}', file=sys.stderr, flush=True)
            continue
        features[video] = prediction.features
        show = _as_json if _JSON.value else _as_text
        print(show(video, prediction, _TOP_K.value), flush=True)
    if _FEATURES.value and features:
        _save_features(Path(_FEATURES.value), features)
    return 1 if failed else 0


def _save_features(path: Path, features: dict[str, np.ndarray]):
    try:
        with path.open('wb') as file:  # np.savez would add .npz to another name
            np.savez(file, videos=list(features), features=np.stack(list(features.values())))
    except OSError as error:
        raise UserError(f'--features={path}: {error.strerror}') from error


def _as_text(video: str, prediction: Prediction, top_k: int) -> str:
    lines = [video]
    lines += [f'  {100 * score:5.1f} %  {label}' for label, score in prediction.top(top_k)]
    for head in head_names(prediction.label_names):
        best = prediction.top(top_k, head=head)
        lines += [f'  {head}', *(f'    {100 * score:5.1f} %  {label}' for label, score in best)]
    if len(prediction.windows) > 1:
        for index, window in enumerate(prediction.windows):
            label, score = prediction.top(1, index)[0]
            span = f'{window.start_sec:7.2f} - {window.end_sec:7.2f} s'
            lines.append(f'  {span}  {100 * score:5.1f} %  {label}')
    return '\n'.join(lines)


def _as_json(video: str, prediction: Prediction, top_k: int) -> str:
    heads = head_names(prediction.label_names)

    def top(window: int | None = None, head: str | None = None) -> list[dict]:
        found = prediction.top(top_k, window, head)
        return [{'label': label, 'score': score} for label, score in found]

    def entries(window: int | None = None) -> dict:
        of_heads = {head: top(window, head) for head in heads}
        return {'top': top(window), **({'heads': of_heads} if heads else {})}

    windows = [
        {'start_sec': window.start_sec, 'end_sec': window.end_sec, **entries(index)}
        for index, window in enumerate(prediction.windows)
    ]
    return json.dumps({'video': video, **entries(), 'windows': windows})


if __name__ == '__main__':
    flags.mark_flag_as_required('checkpoint')
    terminal.run(main)
