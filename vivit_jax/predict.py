"""Names the action in videos.

    python -m vivit_jax.predict --checkpoint=runs/demo VIDEO [VIDEO ...]
    python -m vivit_jax.predict --checkpoint=runs/demo --window_sec=2 --output=out.csv FOLDER
    python -m vivit_jax.predict --checkpoint=runs/demo --window_sec=2 --stream=/dev/video0

`vivit_jax.predictor` does the same from Python.
"""

if __name__ == '__main__':  # before the slow imports
    from vivit_jax.signals import end_on_ctrl_c

    end_on_ctrl_c()

import contextlib
import csv
import dataclasses
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from absl import flags
from tqdm import tqdm

from vivit_jax import terminal
from vivit_jax.errors import UserError
from vivit_jax.heads import LabelNames, PerHead, by_head, head_names
from vivit_jax.prediction import Prediction, Window, chosen_labels, top_labels
from vivit_jax.predictor import Predictor
from vivit_jax.video.find_videos import find_videos, read_list
from vivit_jax.video.frame_reader import VideoError
from vivit_jax.video.limits import Limits
from vivit_jax.video.stream import open_stream
from vivit_jax.video.windows import choose_windows

_log = logging.getLogger('vivit_jax.predict')  # this module's own name is __main__

_CHECKPOINT = flags.DEFINE_string(
    'checkpoint', None, 'Run folder, or whatever vivit_jax.convert reads.'
)
_TOP_K = flags.DEFINE_integer('top_k', 5, 'Labels per video.', lower_bound=1)
_WINDOW_SEC = flags.DEFINE_float(
    'window_sec',
    None,
    'Length of the windows, each of which gets an answer; by default the length of a strided clip.',
)
_STRIDE_SEC = flags.DEFINE_float(
    'stride_sec', None, 'Seconds from one window to the next; by default --window_sec.'
)
_BATCH_SIZE = flags.DEFINE_integer(
    'batch_size',
    None,
    'Clips that are computed together; by default 1 on a CPU, 8 elsewhere.',
    lower_bound=1,
)
_INPUT_LIST = flags.DEFINE_string(
    'input_list',
    None,
    'A file that names videos: a path a line, or a CSV with the column video_path, and depth_path '
    'for models of depth.',
)
_STREAM = flags.DEFINE_string(
    'stream',
    None,
    'A source to read while it comes: a file, a camera such as /dev/video0, or an address.',
)
_DEPTH = flags.DEFINE_list(
    'depth',
    [],
    'For a model of RGB and depth, the depth of every video, in their order: A.mkv,B.mkv.',
)
_NUM_UNITS = flags.DEFINE_integer(
    'num_units',
    None,
    'Units of a clip, for models that take units; by default as in training.',
    lower_bound=1,
)
_LIMITS = [
    (flags.DEFINE_integer if key.type is int else flags.DEFINE_float)(
        key.name, key.default, f'As the key data.limits.{key.name} of a config.', lower_bound=1
    )
    for key in dataclasses.fields(Limits)
]
_JSON = flags.DEFINE_bool('json', False, 'Print one JSON object per video.')
_OUTPUT = flags.DEFINE_string('output', None, 'A .csv file for the answers, instead of printing.')
_FEATURES = flags.DEFINE_string('features', None, 'An .npz file for the features of the videos.')


def main(arguments: list[str]) -> int:
    """Predicts every video, or a stream; returns 1 if a part could not be used."""
    _check_flags(arguments)
    from vivit_jax.parallel.compilation_cache import use_compilation_cache

    use_compilation_cache()
    videos, failed = _find_videos(arguments)
    if failed and not videos:
        return 1
    predictor = Predictor(_CHECKPOINT.value, _BATCH_SIZE.value, _NUM_UNITS.value, _limits())
    if predictor.untrained_heads and not _FEATURES.value:
        raise UserError(
            f'{_CHECKPOINT.value} has a classifier that was never trained, all zero: it gives '
            'every video the same answer. Go on with its training, fine-tune it, or ask for '
            '--features'
        )
    shape = 'x'.join(map(str, predictor.preprocessing.clip_shape))
    _log.info('Compiling the model for clips of %s …', shape)
    if _STREAM.value:
        return _follow(predictor)
    with _open_output(predictor) as show:
        return _predict(predictor, videos, show) or int(failed)


def _check_flags(arguments: list[str]):
    choose_windows(_WINDOW_SEC.value, _STRIDE_SEC.value)
    if _STREAM.value:
        others = [*arguments, _INPUT_LIST.value, _OUTPUT.value, _FEATURES.value]
        if any(others):
            raise UserError('--stream is alone: give no videos, --input_list, --output, --features')
        if _WINDOW_SEC.value is None:
            raise UserError('--stream needs --window_sec, such as --window_sec=2')
    elif not arguments and not _INPUT_LIST.value:
        raise UserError('name at least one video file, a folder of them, or --input_list')
    if _OUTPUT.value and (_JSON.value or not _OUTPUT.value.endswith('.csv')):
        raise UserError(f'--output={_OUTPUT.value} must end in .csv, and be without --json')
    for flag, path in (('output', _OUTPUT.value), ('features', _FEATURES.value)):
        if path and not os.access(Path(path).parent, os.W_OK):
            raise UserError(f'--{flag}={path}: no folder {Path(path).parent} that can be written')


def _find_videos(arguments: list[str]) -> tuple[list[tuple[str, str]], bool]:
    """The videos that the command line names, and whether one of its words names none.

    Each video comes with the path of its depth, or an empty text.
    """
    paths = [(path, '') for path in arguments]
    paths += read_list(_INPUT_LIST.value) if _INPUT_LIST.value else []
    videos, failed = [], False
    for path, depth in paths:
        try:
            if '://' in path and not os.path.exists(path):
                raise VideoError(f'{path}: is an address, which only --stream={path} opens')
            videos += [(video, depth) for video in find_videos(path)]
        except VideoError as error:
            _complain(path, error)
            failed = True
    if _DEPTH.value:
        if len(_DEPTH.value) != len(videos):
            raise UserError(
                f'--depth names {len(_DEPTH.value)} depth videos for {len(videos)} videos: give '
                'one for each, in their order, or a CSV with video_path and depth_path as '
                '--input_list'
            )
        videos = [(video, depth) for (video, _), depth in zip(videos, _DEPTH.value, strict=True)]
    return videos, failed


def _limits() -> Limits:
    return Limits(**{flag.name: flag.value for flag in _LIMITS})


def _choose(predictor: Predictor, video: str, depth: str) -> str | dict[str, str]:
    """What the modality of the model asks for."""
    if depth and predictor.modality == 'depth':
        return depth
    if _DEPTH.value or (depth and predictor.modality == 'rgbd'):
        return {'rgb': video, 'depth': depth}
    return video


def _predict(
    predictor: Predictor,
    pairs: list[tuple[str, str]],
    show: Callable[[str, Prediction | VideoError], None],
) -> int:
    failed, names, features = 0, [], []
    videos = [video for video, _ in pairs]
    is_silent = not _OUTPUT.value and sys.stdout.isatty()
    bar = tqdm(total=len(videos), desc='predicting', leave=False, disable=is_silent or None)
    predictions = predictor.predict_each(
        [_choose(predictor, *pair) for pair in pairs],
        window_sec=_WINDOW_SEC.value,
        stride_sec=_STRIDE_SEC.value,
    )
    with bar:
        for video, found in zip(videos, predictions, strict=True):
            if isinstance(found, VideoError):
                failed = 1
            else:
                names.append(video)
                features.append(found.features)
                for note in found.notes:
                    tqdm.write(f'Note: {video}: {note}', file=sys.stderr)
            show(video, found)
            bar.update()
    if _FEATURES.value and names:
        _save_features(Path(_FEATURES.value), names, features)
    return failed


def _follow(predictor: Predictor) -> int:
    """Prints the windows of a stream as they come."""
    answers = predictor.label_names, predictor.is_multi_label
    windows = predictor.stream(
        open_stream(_STREAM.value, _limits()),
        window_sec=_WINDOW_SEC.value,
        stride_sec=_STRIDE_SEC.value,
    )
    try:
        for window in windows:
            if _JSON.value:
                dropped = {'dropped': window.dropped} if window.dropped else {}
                print(json.dumps(_window_entry(window, *answers) | dropped), flush=True)
                continue
            if window.dropped:
                print(
                    f'Note: dropped {window.dropped} windows: the model is slower than the stream',
                    file=sys.stderr,
                )
            print(_window_line(window, *answers), flush=True)
    except VideoError as error:
        _complain(_STREAM.value, error)
        return 1
    return 0


def _complain(video: str, error: VideoError):
    if _JSON.value:
        print(json.dumps({'video': video, 'error': str(error)}), flush=True)
    else:
        tqdm.write(f'Error: {error}', file=sys.stderr)


def _save_features(path: Path, videos: list[str], features: list[np.ndarray]):
    try:
        with path.open('wb') as file:  # np.savez would add .npz to another name
            np.savez(file, videos=videos, features=np.stack(features))
    except OSError as error:
        raise UserError(f'--features={path}: {error.strerror}') from error


@contextlib.contextmanager
def _open_output(predictor: Predictor) -> Iterator[Callable[[str, Prediction | VideoError], None]]:
    """A function that prints the answer for a video, or writes it to the CSV file."""
    if not _OUTPUT.value:
        yield _print
        return
    count = min(_TOP_K.value, math.prod(map(len, by_head(predictor.label_names).values())))
    columns = [f'{column}_{rank + 1}' for rank in range(count) for column in ('label', 'score')]
    if predictor.is_multi_label:
        columns.insert(0, 'labels')
    # Every line is on disk when the next video begins.
    with open(_OUTPUT.value, 'w', newline='', encoding='utf-8', buffering=1) as file:
        writer = csv.writer(file, lineterminator='\n')
        writer.writerow(['video', 'start_sec', 'end_sec', *columns, 'notes', 'error'])

        def cells(found: Prediction, window: int | None = None) -> list[str | float]:
            best = [cell for pair in found.top(count, window) for cell in pair]
            if not found.is_multi_label:
                return best
            return [';'.join(label for label, _ in found.labels(window)), *best]

        def write(video: str, found: Prediction | VideoError):
            if isinstance(found, VideoError):
                _complain(video, found)
                writer.writerow([video, '', '', *[''] * len(columns), '', found])
                return
            writer.writerow([video, '', '', *cells(found), '; '.join(found.notes), ''])
            for index, window in enumerate(found.windows if len(found.windows) > 1 else ()):
                best = cells(found, index)
                times = round(window.start_sec, 6), round(window.end_sec, 6)
                writer.writerow([video, *times, *best, '', ''])

        yield write


def _print(video: str, found: Prediction | VideoError):
    if isinstance(found, VideoError):
        _complain(video, found)
        return
    entry = json.dumps(_as_entry(video, found)) if _JSON.value else _as_text(video, found)
    print(entry, flush=True)


def _as_text(video: str, prediction: Prediction) -> str:
    names, top_k = prediction.label_names, _TOP_K.value
    lines = [video]
    if prediction.is_multi_label:
        labels = ', '.join(label for label, _ in prediction.labels()) or 'none'
        lines.append(f'  labels above 50 %, each with a probability of its own: {labels}')
    lines += [f'  {100 * score:5.1f} %  {label}' for label, score in prediction.top(top_k)]
    for head in head_names(names):
        best = prediction.top(top_k, head=head)
        lines += [f'  {head}', *(f'    {100 * score:5.1f} %  {label}' for label, score in best)]
    if len(prediction.windows) > 1:
        windows = prediction.windows
        lines += [f'  {_window_line(x, names, prediction.is_multi_label)}' for x in windows]
    return '\n'.join(lines)


def _window_line(window: Window, names: LabelNames, is_multi_label: bool) -> str:
    labels = chosen_labels(window.probabilities, names, is_multi_label)
    text = ', '.join(f'{100 * score:5.1f} %  {label}' for label, score in labels) or 'no label'
    return f'{window.start_sec:7.2f} - {window.end_sec:7.2f} s  {text}'


def _as_entry(video: str, prediction: Prediction) -> dict:
    names = prediction.label_names
    notes = {'notes': list(prediction.notes)} if prediction.notes else {}
    is_multi_label = prediction.is_multi_label
    windows = [_window_entry(window, names, is_multi_label) for window in prediction.windows]
    labels = _labels(prediction.probabilities, names, is_multi_label)
    return {'video': video, **labels, 'windows': windows, **notes}


def _window_entry(window: Window, names: LabelNames, is_multi_label: bool) -> dict:
    times = {'start_sec': round(window.start_sec, 6), 'end_sec': round(window.end_sec, 6)}
    return times | _labels(window.probabilities, names, is_multi_label)


def _labels(probabilities: PerHead[np.ndarray], names: LabelNames, is_multi_label: bool) -> dict:
    def top(head: str | None = None) -> list[dict]:
        found = top_labels(probabilities, names, _TOP_K.value, head)
        return [{'label': label, 'score': score} for label, score in found]

    heads = {head: top(head) for head in head_names(names)}
    labels = [label for label, _ in chosen_labels(probabilities, names, is_multi_label)]
    return {
        **({'labels': labels} if is_multi_label else {}),
        'top': top(),
        **({'heads': heads} if heads else {}),
    }


if __name__ == '__main__':
    flags.mark_flag_as_required('checkpoint')
    terminal.run(main)
