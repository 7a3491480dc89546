"""From videos and a frozen model to a trained model, see `vivit_jax.probe`."""

import dataclasses
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vivit_jax.annotations.dataset import Dataset
from vivit_jax.atomic_files import replace_text
from vivit_jax.batches.load_dataset import load_dataset
from vivit_jax.batches.loader import Workers
from vivit_jax.batches.sources import VideoSource
from vivit_jax.config.schema import default_config
from vivit_jax.errors import UserError, writing
from vivit_jax.evaluation.results import Results, describe_results
from vivit_jax.evaluation.views import parse_views
from vivit_jax.features.backbone import Backbone, read_backbone
from vivit_jax.features.cache import Cache
from vivit_jax.features.extract import choose_batch_size, extract
from vivit_jax.models.vivit.specification import ViViT
from vivit_jax.probe.folds import draw_folds
from vivit_jax.probe.model import add_head
from vivit_jax.probe.search import (
    Candidate,
    Features,
    apply_head,
    join_features,
    try_heads,
)
from vivit_jax.video.durations import median_duration_sec
from vivit_jax.weights.orbax import has_checkpoints, write_checkpoint

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Probe:
    """What the flags of the command ask for.

    Attributes:
        checkpoint: see `read_weights`.
        output: folder for the model, the features and the table.
        files: `train_csv`, `val_csv` and `test_csv`, '' where there is none.
        folder: of a folder of videos for each class; ''.
        label_separator: what stands between the labels of a video; '': every video has one label.
        views: temporal x spatial clips of each video.
        is_attentive: whether to try pooling by attention.
        num_frames, crop_size: see `read_backbone`.
        batch_size: clips that are computed together.
        num_workers: decoding processes.
        seed: of all that is random.
    """

    checkpoint: str
    output: Path
    files: dict[str, str]
    folder: str
    label_separator: str
    views: str
    is_attentive: bool
    num_frames: int | None
    crop_size: int | None
    batch_size: int | None
    num_workers: int
    seed: int

    def run(self):
        """Computes features, tries heads, prints their table, and keeps the best head.

        Raises:
            UserError: something does not fit; the message says what to do.
        """
        if has_checkpoints(self.output / 'checkpoints'):
            raise UserError(f'{self.output} holds a model already: name another folder')
        views = parse_views(self.views, '--views')
        backbone = read_backbone(
            self.checkpoint, num_frames=self.num_frames, crop_size=self.crop_size
        )
        data = self._load(backbone)
        has_tokens = self.is_attentive and isinstance(backbone.model.spec, ViViT)
        cache = Cache.of(self.output / 'features', backbone.key, views, has_tokens)
        self._extract(backbone, data.splits, cache, views, has_tokens)
        num_classes, is_multi_label = len(data.label_names), bool(self.label_separator)
        splits = {x: _read(source, cache, num_classes) for x, source in data.splits.items()}
        (train, rows), val = splits['train'], splits.get('val')
        source = data.splits['train']
        if val:
            held_out = np.repeat([False, True], [len(rows), len(val[1])])[None]
            train = join_features(train, val[0])
        else:
            folds = draw_folds([source.videos[i] for i in rows], train.targets, self.seed)
            held_out = folds == np.arange(folds.max() + 1)[:, None]
        spec = backbone.model.spec
        found = []
        for candidate in try_heads(
            train, held_out, spec, is_multi_label=is_multi_label, seed=self.seed
        ):
            _log.info('%s', _describe(candidate))
            found.append(candidate)
        best = max((x for x in found if x.train), key=lambda x: x.metric)
        head = best.train()
        metric, words = ('map', 'mAP') if is_multi_label else ('acc1', 'top-1')
        lines = _table(found, best, words, len(held_out))
        summary = {
            'candidates': [_as_json(x, metric) for x in found],
            'kept': _as_json(best, metric),
        }
        if test := splits.get('test'):
            results = _results(apply_head(head, test[0], spec), data.splits['test'], test[1])
            summary['test'] = results.metrics('logits')
            how = f'{self.views} views'
            lines.append(describe_results(results, 'Test', how, summary['test']))
        seconds = median_duration_sec(source.open, len(source))
        card, params, batch_stats = add_head(
            backbone, head, data.label_names, seconds, is_multi_label
        )
        write_checkpoint(card, params, self.output / 'checkpoints', batch_stats)
        with writing(self.output):
            replace_text(self.output / 'probe.json', json.dumps(summary, indent=2) + '\n')
        print('\n'.join(lines))
        print(
            f'Wrote {self.output}. python -m vivit_jax.predict --checkpoint={self.output} VIDEO '
            'takes it'
        )

    def _load(self, backbone: Backbone) -> Dataset[VideoSource]:
        if not (self.folder or self.files['train_csv']):
            raise UserError('no training videos: give --train_csv, or --data with a folder')
        data = default_config().data
        data.root, data.val_fraction = self.folder, 0.0
        data.label_separator = self.label_separator
        data.update(self.files)
        found = load_dataset(
            data,
            modality=backbone.model.spec.modality,
            stretch_depth=backbone.card.preprocessing.stretch_depth,
        )
        if 'train' not in found.splits:
            raise UserError('no training videos: give --train_csv, or --data with a folder')
        if len(found.label_names) < 2 and not self.label_separator:
            raise UserError(f'there is only one class, {found.label_names[0]!r}')
        return found

    def _extract(
        self,
        backbone: Backbone,
        splits: Mapping[str, VideoSource],
        cache: Cache,
        views: tuple[int, int],
        has_tokens: bool,
    ):
        videos = [video for source in splits.values() for video in source.videos]
        for _ in range(2):  # a damaged file is found when it is read, and then made anew
            failures = extract(
                backbone,
                videos,
                cache,
                views=views,
                has_tokens=has_tokens,
                batch_size=choose_batch_size(self.batch_size),
                workers=Workers(self.num_workers),
            )
            sizes = [cache.check(video) for video in videos]
            if sizes.count(0) <= len(failures):
                break
        memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
        if sum(sizes) > memory / 2:
            raise UserError(
                f'the features of {len(videos)} videos have {sum(sizes) / 2**30:.0f} GiB, more '
                'than half of the memory: give --noattentive, which needs no tokens, fewer '
                '--frames, or a smaller --crop_size'
            )


def _read(source: VideoSource, cache: Cache, num_classes: int) -> tuple[Features, list[int]]:
    """The features of a split, and the indices of the videos that have some."""
    found = {index: cache.read(video) for index, video in enumerate(source.videos)}
    found = {index: arrays for index, arrays in found.items() if arrays is not None}
    targets = np.array([source.label(index) for index in found])
    if targets.ndim == 1:  # one label for each video
        targets = np.eye(num_classes, dtype=np.float32)[targets.astype(int)]
    if not targets.any():
        raise UserError('none of the videos of a split that have a label can be used')
    arrays = list(found.values())
    stacked = {name: np.stack([x[name] for x in arrays]) for name in arrays[0]}
    return Features.of(targets, stacked), list(found)


def _results(scores: np.ndarray, source: VideoSource, rows: list[int]) -> Results:
    """Results of a split from scores [n classes] of the videos that have features."""
    logits = np.zeros((len(source), 1, scores.shape[1]), np.float32)
    logits[rows, 0] = scores
    labels = np.stack([source.label(index) for index in range(len(source))])
    without = set(range(len(source))).difference(rows)
    return Results(logits, labels, {index: source.name(index) for index in without})


def _describe(candidate: Candidate) -> str:
    return (
        f'{candidate.name} on {_sees(candidate)}, {candidate.setting}: '
        f'{100 * candidate.metric:.1f} %'
    )


_POOLS = {
    'mean': 'the mean over time',
    'concat': 'all frames one after the other',
    'change': 'changes in each part of the frame',
    'attention': 'all tokens',
}


def _sees(candidate: Candidate) -> str:
    depth = candidate.depth
    return _POOLS[candidate.pool] + (f', after {depth} blocks' if depth else '')


def _as_json(candidate: Candidate, metric: str) -> dict:
    return {
        'head': candidate.name,
        'pool': candidate.pool,
        'depth': candidate.depth,
        'setting': candidate.setting,
        f'held_out_{metric}': candidate.metric,
    }


def _table(found: list[Candidate], best: Candidate, metric: str, num_folds: int) -> list[str]:
    how = f'{num_folds} folds' if num_folds > 1 else 'validation split'
    lines = [f'| head | sees | setting | {metric}, {how} | |', '|---|---|---|---|---|']
    for x in sorted(found, key=lambda x: -x.metric):
        mark = 'kept' if x is best else ''
        lines.append(f'| {x.name} | {_sees(x)} | {x.setting} | {100 * x.metric:.1f} % | {mark} |')
    return lines
