"""Names the action in videos, arrays and streams.

>>> from vivit_jax.predictor import Predictor
>>> predict = Predictor('runs/demo')
>>> print(predict('video.mp4').top(5))
"""

import collections
import dataclasses
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from vivit_jax.errors import UserError
from vivit_jax.evaluation.views import probabilities
from vivit_jax.heads import PerHead, map_heads
from vivit_jax.prediction import Prediction, Window
from vivit_jax.video.array_reader import ArrayReader
from vivit_jax.video.clips import read_windows
from vivit_jax.video.durations import describe_length, describe_missing
from vivit_jax.video.frame_reader import FrameReader, VideoError
from vivit_jax.video.limits import Limits
from vivit_jax.video.open import open_video
from vivit_jax.video.recording import Recording, blank_clips
from vivit_jax.video.stream import Stream, keep_newest, window_clips
from vivit_jax.video.windows import Span, WindowCutter, check_windows, choose_windows

__all__ = ['Prediction', 'Predictor', 'Window']

if TYPE_CHECKING:
    from vivit_jax.layers.tokens import ModelOutput

_Single = str | Path | bytes | np.ndarray | Iterator[np.ndarray]
Video = _Single | Mapping[str, _Single]

_Key = TypeVar('_Key')
_Clips = dict[str, np.ndarray]  # `rgb` uint8 [t h w 3] and/or `depth` uint16 [t h w 1]
_Output = tuple[PerHead[np.ndarray], np.ndarray]  # probabilities and features of a clip


class Predictor:
    """A trained model with its preprocessing and its classes.

    A video is a path of a file or of a folder of frames; the encoded bytes of a file; uint8 frames
    [t h w 3] in RGB; or an iterator of uint8 frames [h w 3]. Arrays and iterators need `fps`. For a
    model of depth, a video is a depth video; its frames in memory are uint16 [t h w]. For a model
    of both, it is a dict `{'rgb': video, 'depth': video}`.

    Without `window_sec`, windows of a strided clip's length follow each other until the end; the
    last one ends with the video. If clips are drawn from segments or units, one window covers the
    whole video. With `window_sec`, window k begins `k · stride_sec` after the first frame, and the
    clip is sampled from the frames whose times lie in the window, as from a video of that length;
    see `WindowCutter`.

    The answer for a clip is the same whatever clips are computed with it: one program for
    `batch_size` clips computes every batch, and rows that are missing are filled with zeros.

    Args:
        checkpoint: see `vivit_jax.load_checkpoint`.
        batch_size: clips that are computed together, from one video or several; by default 1 on a
            CPU, which gains little from more, and 8 elsewhere.
        num_units: units of a clip, for models that take units; by default as in training.
        limits: what a video may have at most.

    Raises:
        UserError: there is no checkpoint, the batch size is not positive, or clips have no units.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        batch_size: int | None = None,
        num_units: int | None = None,
        limits: Limits = Limits(),
    ):
        import jax

        from vivit_jax.evaluation.forward import create_forward
        from vivit_jax.parallel.mesh import fit_dtype
        from vivit_jax.weights.init_from import find_untrained_heads
        from vivit_jax.weights.load import create_weights_model, read_weights

        if batch_size is not None and batch_size < 1:
            raise UserError(f'batch_size={batch_size} must be at least 1')
        self._limits = limits
        weights = read_weights(checkpoint)
        model, self._variables = create_weights_model(weights)
        self.modality = model.spec.modality
        try:
            self.preprocessing = weights.card.preprocessing.with_units(num_units)
        except ValueError as error:
            raise UserError(f'num_units={num_units}: {error}') from error
        self.label_names = weights.card.label_names
        self._typical_sec = weights.card.typical_sec
        self.is_multi_label = weights.card.is_multi_label
        self.untrained_heads = find_untrained_heads(self._variables['params'])
        [device] = jax.tree.leaves(self._variables)[0].devices()
        model = fit_dtype(model, device.platform)
        self._batch_size = batch_size or (1 if device.platform == 'cpu' else 8)
        self._forward = jax.jit(create_forward(model, self.preprocessing))

    def __call__(
        self,
        video: Video | list[Video],
        *,
        fps: float | None = None,
        window_sec: float | None = None,
        stride_sec: float | None = None,
    ) -> Prediction | list[Prediction]:
        """Predicts a video, or every video of a list.

        Args:
            video: a video, or a list of videos.
            fps: frames per second of arrays and iterators; files have their own.
            window_sec: length of the windows.
            stride_sec: distance of the windows, by default `window_sec`.

        Returns:
            A prediction, or a list of them.

        Raises:
            VideoError: a video cannot be used. `predict_each` goes on with the others.
            UserError: the settings of the windows cannot be used.
        """
        is_list = isinstance(video, list | tuple)
        videos = video if is_list else [video]
        predictions = []
        for found in self.predict_each(
            videos, fps=fps, window_sec=window_sec, stride_sec=stride_sec
        ):
            if isinstance(found, VideoError):
                raise found
            predictions.append(found)
        return predictions if is_list else predictions[0]

    def predict_each(
        self,
        videos: Iterable[Video],
        *,
        fps: float | None = None,
        window_sec: float | None = None,
        stride_sec: float | None = None,
    ) -> Iterator[Prediction | VideoError]:
        """Predicts videos one after the other, with the arguments of a call.

        Yields:
            For every video, in order, the prediction, or the error if the video cannot be used.
        """
        spec, windows = self.preprocessing, choose_windows(window_sec, stride_sec)
        read = collections.deque()

        def clips() -> Iterator[tuple[tuple['_Read', Span], _Clips]]:
            for number, video in enumerate(videos):
                found = _Read()
                read.append(found)
                try:
                    with self._open(video, fps, f'video {number}') as recording:
                        for span, clip in read_windows(recording, spec, windows, found.notes):
                            yield (found, span), clip
                        found.notes += describe_missing(recording.main)
                        if not windows:
                            found.notes += describe_length(recording.main, spec, self._typical_sec)
                except VideoError as error:
                    found.error = error

        def finish(until: '_Read | None') -> Iterator[VideoError]:
            """Forgets the videos before one; they have no clips."""
            while read and read[0] is not until:
                yield read.popleft().error

        answers = self._run(clips())
        for found, group in itertools.groupby(answers, lambda answer: answer[0][0]):
            yield from finish(found)
            found_windows = [
                Window(span.start_sec, span.end_sec, *output) for (_, span), output in group
            ]
            read.popleft()
            yield found.error or self._prediction(found_windows, found.notes)
        yield from finish(None)

    def stream(
        self,
        frames: Stream | Iterable,
        *,
        window_sec: float,
        stride_sec: float | None = None,
        fps: float | None = None,
    ) -> Iterator[Window]:
        """Predicts windows while their frames come; the same as of the finished video.

        Memory holds the resized frames of one window. If a live `Stream` is faster than the model,
        windows are dropped, and the next one says how many.

        Args:
            frames: uint8 frames [h w 3] in RGB, if `fps` is given; otherwise pairs of a time in
                seconds and a frame, or what `vivit_jax.video.stream.open_stream` returns.
            window_sec: length of the windows.
            stride_sec: distance of the windows, by default `window_sec`.
            fps: frames per second.

        Yields:
            A window as soon as its last frame has come: with `fps` at once, otherwise when the
            frame after it shows that it was the last.

        Raises:
            UserError: the settings of the windows cannot be used, or times do not ascend.
            VideoError: the stream breaks off, after the last window of what came before.
        """
        if self.modality != 'rgb':
            raise UserError(
                f'a stream has RGB frames, and this model has the modality {self.modality!r}: '
                'predict recorded videos'
            )
        window_sec, stride_sec = choose_windows(window_sec, stride_sec)
        if isinstance(frames, str | os.PathLike):
            raise UserError(f'{frames}: give vivit_jax.video.stream.open_stream({str(frames)!r})')
        frames, is_live = frames if isinstance(frames, Stream) else (frames, False)
        frame_sec = 0.0
        if fps:
            frame_sec = 1 / fps
            check_windows(window_sec, stride_sec, frame_sec)
            frames = ((number / fps, frame) for number, frame in enumerate(frames))
        cutter = WindowCutter(window_sec, stride_sec)
        clips = window_clips(frames, self.preprocessing, cutter, frame_sec)
        if not is_live:
            return self._stream((0, clip) for clip in clips)
        blank = blank_clips(['rgb'], self.preprocessing.clip_shape)
        collections.deque(self._run([(None, blank)]), 0)  # compiles while nothing waits for it
        return self._stream(keep_newest(clips))

    def _stream(self, clips: Iterator[tuple[int, tuple[Span, np.ndarray]]]) -> Iterator[Window]:
        for dropped, (span, clip) in clips:
            [(_, output)] = self._run([(span, {'rgb': clip})])
            yield Window(span.start_sec, span.end_sec, *output, dropped)

    def _run(self, clips: Iterable[tuple[_Key, _Clips]]) -> Iterator[tuple[_Key, _Output]]:
        """Computes clips in batches; the next is read while one is computed."""
        clips, keys, output = iter(clips), [], None
        while batch := list(itertools.islice(clips, self._batch_size)):
            shape = (self._batch_size, *self.preprocessing.clip_shape)
            pixels = blank_clips(batch[0][1].keys(), shape)
            for row, (_, clips_of_row) in enumerate(batch):
                for kind, clip in clips_of_row.items():
                    pixels[kind][row] = clip
            computing = self._forward(self._variables, pixels)
            yield from _rows(keys, output, self.is_multi_label)
            keys, output = [key for key, _ in batch], computing
        yield from _rows(keys, output, self.is_multi_label)

    def _open(self, video: Video, fps: float | None, name: str) -> Recording:
        if (self.modality == 'rgbd') != isinstance(video, Mapping):
            wanted = (
                "RGB and depth: give a dict {'rgb': VIDEO, 'depth': VIDEO}, or --depth to the "
                'command'
                if self.modality == 'rgbd'
                else f'{self.modality} alone: give one video, without a dict or --depth'
            )
            raise UserError(f'{name}: the model takes {wanted}')
        videos = video if isinstance(video, Mapping) else {self.modality: video}
        if self.modality == 'rgbd' and videos.keys() != {'rgb', 'depth'}:
            raise UserError(f"{name} has {list(videos)}, but must have 'rgb' and 'depth'")
        readers = {}
        try:
            for kind in ('rgb', 'depth'):
                if kind in videos:
                    readers[kind] = _open(videos[kind], fps, name, kind, self._limits)
        except VideoError:
            for reader in readers.values():
                reader.close()
            raise
        return Recording(readers, self.preprocessing.stretch_depth)

    def _prediction(self, windows: list[Window], notes: list[str]) -> Prediction:
        mean = map_heads(
            lambda *windows: np.mean(windows, axis=0), *(window.probabilities for window in windows)
        )
        features = np.mean([window.features for window in windows], axis=0)
        return Prediction(
            mean, features, tuple(windows), self.label_names, tuple(notes), self.is_multi_label
        )


@dataclasses.dataclass(eq=False)
class _Read:
    """What reading a video found out."""

    notes: list[str] = dataclasses.field(default_factory=list)
    error: VideoError | None = None


def _open(video: _Single, fps: float | None, name: str, kind: str, limits: Limits) -> FrameReader:
    if isinstance(video, str | os.PathLike):
        return open_video(video, limits=limits)
    if isinstance(video, bytes):
        return open_video(video, name=name, limits=limits)
    if not isinstance(video, Iterator | np.ndarray):
        raise UserError(
            f'{name} is of type {type(video).__name__}, but must be a path, bytes, a uint8 array '
            '[t h w 3] or an iterator of frames'
        )
    if fps is None:
        raise UserError(f'{name}: frames need fps, their number in a second')
    if isinstance(video, np.ndarray) and video.ndim != 4 and kind == 'rgb':
        raise UserError(
            f'{name} has the shape {video.shape}, but must be [t h w 3]: a list is a list of '
            'videos, and np.stack makes a video of a list of frames'
        )
    frames = video if isinstance(video, np.ndarray) else list(video)
    return ArrayReader(frames, fps, name, kind, limits)


def _rows(
    keys: list[_Key], output: 'ModelOutput | None', is_multi_label: bool
) -> Iterator[tuple[_Key, _Output]]:
    """The outputs of the clips of a batch, as soon as they are computed."""
    if keys:
        scores = map_heads(lambda x: probabilities(np.asarray(x), is_multi_label), output.logits)
        features = np.asarray(output.features)
    for row, key in enumerate(keys):
        yield key, (map_heads(lambda x, row=row: x[row], scores), features[row])
