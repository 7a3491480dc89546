"""The result of an evaluation, for people and for later."""

import json
from pathlib import Path

import numpy as np

from vivit_jax.data.sources import VideoFiles
from vivit_jax.evaluation.evaluator import Results


def describe(results: Results, split: str, protocol: str, metrics: dict[str, float]) -> str:
    """Accuracies in percent, and how they were obtained."""
    lines = [
        f'{split}, {protocol}, {len(results.labels)} videos: '
        f'top-1 {100 * metrics["acc1"]:.2f} %, top-5 {100 * metrics["acc5"]:.2f} %, '
        f'mean class {100 * metrics["mean_class_acc"]:.2f} %, loss {metrics["loss"]:.4f}'
    ]
    if results.failures:
        first = next(iter(results.failures.values()))
        lines.append(
            f'{len(results.failures)} videos could not be decoded and count as wrong, such as '
            f'{first}'
        )
    return '\n'.join(lines)


def save(
    folder: Path,
    results: Results,
    source: VideoFiles,
    label_names: tuple[str, ...],
    summary: dict[str, object],
) -> Path:
    """Writes `<split>_<views>_step<step>.npz` (all logits, so that merging can be redone) and a
    `.json` with the protocol and the metrics; returns the path of the former.

    Args:
        folder: `evaluation` in the run folder.
        results: what was seen.
        source: names the videos.
        label_names: classes in the order of the logits.
        summary: at least `split`, `views` and `step`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f'{summary["split"]}_{summary["views"]}_step{summary["step"]}.npz'
    np.savez_compressed(
        path,
        logits=results.logits,
        labels=results.labels,
        videos=np.array([source.name(i) for i in range(len(source))]),
        failed=np.array(sorted(results.failures), np.int32),
        label_names=np.array(label_names),
    )
    failures = {source.name(i): text for i, text in results.failures.items()}
    text = json.dumps({**summary, 'failures': failures}, indent=2)
    path.with_suffix('.json').write_text(text + '\n', encoding='utf-8')
    return path
