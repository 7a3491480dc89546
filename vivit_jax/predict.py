"""Names the action in videos.

    python -m vivit_jax.predict --checkpoint=runs/demo VIDEO [VIDEO ...]

`vivit_jax.predictor` does the same from Python.
"""

import json
import sys
from pathlib import Path

import numpy as np
from absl import flags

from vivit_jax import terminal
from vivit_jax.errors import UserError
from vivit_jax.heads import head_names
from vivit_jax.predictor import Prediction, Predictor
from vivit_jax.video.frame_reader import VideoError

_CHECKPOINT = flags.DEFINE_string(
    'checkpoint', None, 'Run folder, or whatever vivit_jax.convert reads.'
)
_TOP_K = flags.DEFINE_integer('top_k', 5, 'Labels per video.', lower_bound=1)
_JSON = flags.DEFINE_bool('json', False, 'Print one JSON object per video.')
_FEATURES = flags.DEFINE_string('features', None, 'An .npz file for the features of the videos.')


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
