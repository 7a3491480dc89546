"""The result of an evaluation: logits of every view, described in words, and saved."""

import dataclasses
import hashlib
import json
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vivit_jax.atomic_files import replace_text, replacing
from vivit_jax.batches.sources import VideoSource
from vivit_jax.errors import writing
from vivit_jax.evaluation.metrics import (
    average_precisions,
    classification_metrics,
    multi_label_metrics,
)
from vivit_jax.evaluation.views import merge_views
from vivit_jax.heads import LabelNames, PerHead, by_head, head_names, map_heads, name_heads


@dataclasses.dataclass(frozen=True)
class Results:
    """The logits of all views of a split.

    Attributes:
        logits: float32 [videos views classes] of each head, temporal views outermost; zero for
            failed videos.
        labels: int32 [videos] of each head; of videos with any number of labels float32
            [videos classes], see `VideoSource.label`.
        failures: message per video (its index) that could not be decoded.
    """

    logits: PerHead[np.ndarray]
    labels: PerHead[np.ndarray]
    failures: dict[int, str]

    @property
    def num_videos(self) -> int:
        """Videos of the split, failed ones included."""
        return len(next(iter(by_head(self.labels).values())))

    @property
    def is_multi_label(self) -> bool:
        """Whether the videos have any number of labels."""
        return not isinstance(self.labels, dict) and self.labels.ndim > 1

    def metrics(self, merge: str) -> dict[str, float]:
        """Metrics of the merged views, see `classification_metrics` and `multi_label_metrics`.

        Failed videos count as wrong. Of five classes or fewer there is no top-5.
        """
        scores = self._merged(merge)
        if self.is_multi_label:
            return multi_label_metrics(scores, self.labels, self._failed)
        metrics = classification_metrics(scores, self.labels, self._failed)
        sizes = name_heads('acc5', map_heads(lambda logits: logits.shape[-1], self.logits))
        sizes['acc5'] = math.prod(sizes.values())  # of several heads, an action is a class of each
        return {name: x for name, x in metrics.items() if sizes.get(name, 6) > 5}

    def average_precisions(self, merge: str) -> np.ndarray:
        """Of videos with any number of labels, see `average_precisions`: float64 [classes]."""
        return average_precisions(self._merged(merge), self.labels, self._failed)

    def _merged(self, merge: str) -> PerHead[np.ndarray]:
        return map_heads(lambda x: merge_views(x, merge, self.is_multi_label), self.logits)

    @property
    def _failed(self) -> np.ndarray:
        return np.isin(np.arange(self.num_videos), list(self.failures))


def describe_results(results: Results, split: str, protocol: str, metrics: dict[str, float]) -> str:
    """Protocol, accuracies in percent and loss in a line; several heads have a line each below."""
    names = {'acc1': 'top-1', 'acc5': 'top-5', 'mean_class_acc': 'mean class', 'map': 'mAP'}

    def numbers(prefix: str) -> str:
        found = [
            f'{text} {100 * metrics[prefix + name]:.2f} %'
            for name, text in names.items()
            if prefix + name in metrics
        ]
        return ', '.join([*found, f'loss {metrics[prefix + "loss"]:.4f}'])

    heads = head_names(results.labels)
    title = f'{split}, {protocol}, {results.num_videos} videos: '
    lines = [title + ('action ' if heads else '') + numbers('')]
    lines += [f'  {head} {numbers(f"{head}/")}' for head in heads]
    if results.is_multi_label and (without := int((results.labels.sum(axis=0) == 0).sum())):
        count = results.labels.shape[1]
        lines.append(f'  mAP leaves out {without} of {count} classes, which no video here has')
    lines += _warn_of_constant_answers(metrics, results)
    if results.failures:
        first = next(iter(results.failures.values()))
        lines.append(
            f'{len(results.failures)} videos could not be decoded and count as wrong, such as '
            f'{first}'
        )
    return '\n'.join(lines)


def _warn_of_constant_answers(metrics: dict[str, float], results: Results) -> list[str]:
    """Warnings of a loss of ln(answers), which equal probabilities for all answers have."""
    lines = []
    for head, logits in by_head(results.logits).items():
        answers, what = logits.shape[-1], 'all classes'
        if results.is_multi_label:
            answers, what = 2, 'yes and no'
        if abs(metrics[f'{head}/loss' if head else 'loss'] - math.log(answers)) < 1e-3:
            lines.append(
                f'Warning: the loss {f"of {head} " if head else ""}is ln({answers}), that of equal '
                f'probabilities for {what}: the classifier has learned nothing, or its weights '
                'were not loaded'
            )
    return lines


def save_results(
    folder: Path,
    step: str,
    results: Results,
    source: VideoSource,
    label_names: LabelNames,
    summary: dict[str, object],
) -> Path:
    """Writes `<split>_<views>_<step>.npz` (all logits, so that merging can be redone) and a
    `.json` with the protocol and the metrics; returns the path of the former.

    Of several heads `logits`, `labels` and `label_names` are called `<head>/logits` and so on.

    Args:
        folder: `evaluation` in the run folder, made by `check_results_folder`.
        step: what was tested, such as `'step640'`.
        results: what was seen.
        source: names the videos.
        label_names: the classes.
        summary: at least `split` and `views`.

    Raises:
        UserError: the files cannot be written.
    """
    path = _results_path(folder, step, summary)
    failures = {source.name(i): text for i, text in results.failures.items()}
    text = json.dumps({**summary, 'failures': failures}, indent=2)
    with writing(path):
        with replacing(path) as unfinished, unfinished.open('wb') as file:
            np.savez_compressed(
                file,
                **name_heads('logits', results.logits),
                **name_heads('labels', results.labels),
                **name_heads('label_names', map_heads(np.array, label_names)),
                videos=np.array([source.name(i) for i in range(len(source))]),
                failed=np.array(sorted(results.failures), np.int32),
            )
        replace_text(path.with_suffix('.json'), text + '\n')
    return path


def find_saved_metrics(
    folder: Path, step: str, summary: Mapping[str, object]
) -> dict[str, float] | None:
    """The metrics that `save_results` wrote of the same test.

    Args:
        folder: `evaluation` in the run folder.
        step: what was tested, such as `'step640'`.
        summary: what the saved summary must have, at least `split` and `views`.

    Returns:
        Metrics, accuracies as fractions. None if there is no such test, or if some of its videos
        failed, as these may have been mended since.
    """
    try:
        saved = json.loads(_results_path(folder, step, summary).with_suffix('.json').read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    if any(saved.get(key) != value for key, value in summary.items()) or saved['failures']:
        return None
    start, end = f'{summary["split"]}/', f'@{summary["views"]}'
    return {
        key.removeprefix(start).removesuffix(end): value
        for key, value in saved.items()
        if key.startswith(start) and key.endswith(end)
    }


def hash_videos(source: VideoSource) -> str:
    """The SHA-256 of the names, parts and labels of all videos."""
    return hashlib.sha256(repr(list(source.videos)).encode()).hexdigest()


def _results_path(folder: Path, step: str, summary: Mapping[str, object]) -> Path:
    return folder / f'{summary["split"]}_{summary["views"]}_{step}.npz'


def check_results_folder(folder: Path, is_new_run: bool = False):
    """Makes the folder of `save_results` before a test, whose results would be lost without.

    Args:
        folder: `evaluation` in the run folder.
        is_new_run: whether to make the run folder too.

    Raises:
        UserError: the folder cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=is_new_run, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
