"""Tries heads on features, and chooses one by videos that were held out."""

import dataclasses
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Self

import flax.linen as nn
import jax
import numpy as np

from vivit_jax.evaluation.metrics import average_precisions
from vivit_jax.layers.specification import TransformerSpecification
from vivit_jax.probe.heads import AttentiveHead, LinearHead, Ridge, knn_scores
from vivit_jax.probe.losses import calibrate
from vivit_jax.probe.scale import Scale
from vivit_jax.probe.training import Setting, apply_heads, train_heads

_log = logging.getLogger(__name__)

_NEIGHBOURS = (1, 5, 10, 20)
_PENALTIES = tuple(10.0**power for power in range(-4, 4))
_LINEAR = tuple(map(Setting._make, itertools.product((1e-4, 3e-4, 1e-3, 3e-3), (0.01, 0.3))))
_ATTENTIVE = tuple(map(Setting._make, itertools.product((3e-3, 1e-2, 3e-2), (0.01,))))
_ScoresOfFold = Callable[[np.ndarray, np.ndarray, np.ndarray], list[np.ndarray]]
_LARGEST = 8192  # numbers of examples or of features beyond which ridge regression takes minutes


@dataclasses.dataclass(frozen=True)
class Features:
    """The features of a split.

    Attributes:
        targets: float32 [n classes], 1 for each class of a video and 0 for the others.
        vectors: float32 [n views t d].
        tokens: float16 [n views t places d], or None.
        changes: float32 [n views c] of single frames, by the depth of the tokens; may be empty.
    """

    targets: np.ndarray
    vectors: np.ndarray
    tokens: np.ndarray | None = None
    changes: Mapping[int, np.ndarray] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, targets: np.ndarray, arrays: Mapping[str, np.ndarray]) -> Self:
        """Features of targets and of the outputs of `Backbone.forward` for all videos."""
        depths = {name: name.removeprefix('changes_') for name in arrays}
        changes = {int(x): arrays[name] for name, x in depths.items() if x != name}
        return cls(targets, arrays['vectors'], arrays.get('tokens'), changes)


@dataclasses.dataclass(frozen=True)
class Head:
    """A trained head that a model can have.

    Attributes:
        pool: `'mean'` or `'concat'` of the vectors over time, `'change'` of the tokens over time,
            see `pool_changes`, or `'attention'` over all tokens.
        params: `output_projection`, and of `'attention'` also `attention_pool`.
        depth: of `'change'`: after so many blocks the tokens are taken.
    """

    pool: str
    params: Mapping
    depth: int | None = None


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A kind of head with its best setting.

    Attributes:
        name: of the head, such as `'ridge'`.
        pool: what it sees, see `Head`.
        setting: in words.
        metric: on the held-out videos of all folds together: the part that is right; with any
            number of labels, their mean average precision.
        train: trains the head; None: it can be no part of a model.
        depth: see `Head`.
    """

    name: str
    pool: str
    setting: str
    metric: float
    train: Callable[[], Head] | None
    depth: int | None = None


def try_heads(
    features: Features,
    held_out: np.ndarray,
    spec: TransformerSpecification | None = None,
    *,
    is_multi_label: bool = False,
    seed: int = 0,
) -> Iterator[Candidate]:
    """Tries every kind of head, each with its settings.

    Args:
        features: of the videos to train on, and of a validation split, if there is one.
        held_out: bool [folds n]: which videos each fold leaves out of the training. A video that
            all folds leave out belongs to the validation split, and no head is trained on it.
        spec: of the model whose tokens the features have, if they have tokens.
        is_multi_label: whether videos have any number of labels, instead of one.
        seed: of what is random.

    Yields:
        Each kind of head with its best setting: the highest metric on the videos that were held
        out; equals go to the first.
    """
    pools = [('mean', None)]
    if features.vectors.shape[2] > 1:
        pools += [('concat', None), *(('change', depth) for depth in features.changes)]
    num_classes = features.targets.shape[1]
    for pool, depth in pools:
        search = _Search(features, held_out, is_multi_label, pool, seed, depth)
        yield search.try_neighbours()
        has_ridge = min(search.inputs.shape) <= _LARGEST
        if has_ridge:
            yield search.try_ridge()
        else:
            _log.info('No ridge regression: %s features are too many', search.inputs.shape[1])
        if pool != 'change' or not has_ridge:  # for each depth it would take a minute or more
            yield search.try_trained('linear', LinearHead(num_classes), _LINEAR, 60, 64)
    if features.tokens is not None:
        search = _Search(features, held_out, is_multi_label, 'attention', seed)
        yield search.try_trained('attentive', AttentiveHead(spec, num_classes), _ATTENTIVE, 30, 16)


class _Search:
    """Heads of one pool; every view of a video is an example."""

    def __init__(
        self,
        features: Features,
        held_out: np.ndarray,
        is_multi_label: bool,
        pool: str,
        seed: int,
        depth: int | None = None,
    ):
        views = features.vectors.shape[1]
        self.held_out = np.repeat(held_out, views, axis=1)
        self.is_trained_on = ~self.held_out.all(axis=0)
        self.inputs = inputs_of(features, pool, depth)
        self.targets = np.repeat(features.targets, views, axis=0)
        self.held_out_targets = _join(features.targets[out] for out in held_out)  # of videos
        self.is_multi_label, self.pool, self.depth, self.seed = is_multi_label, pool, depth, seed

    def metric(self, scores: np.ndarray) -> float:
        """See `Candidate`; of scores [m·views classes] of the held-out examples, fold by fold."""
        targets = self.held_out_targets
        of_videos = merge_views(scores, len(targets))
        if self.is_multi_label:
            has_failed = np.zeros(len(targets), bool)
            return float(np.nanmean(average_precisions(of_videos, targets, has_failed)))
        return float((of_videos.argmax(axis=1) == targets.argmax(axis=1)).mean())

    def scores(self, of_fold: _ScoresOfFold) -> list[np.ndarray]:
        """Scores [m·views classes] of the held-out examples, fold by fold, for every setting.

        Args:
            of_fold: maps inputs and targets to train on, and held-out inputs, to the scores of
                these for every setting. The inputs are scaled by those to train on.
        """
        found = []
        for out in self.held_out:
            scale = Scale.of(self.inputs[~out])
            train, queries = scale(self.inputs[~out]), scale(self.inputs[out])
            found.append(of_fold(train, self.targets[~out], queries))
        return [_join(of_setting) for of_setting in zip(*found, strict=True)]

    def calibrate(self, scores: np.ndarray) -> tuple[float, np.ndarray]:
        """See `calibrate`; of scores [m·views classes] of the held-out examples, fold by fold."""
        targets = _join(self.targets[out] for out in self.held_out)
        return calibrate(scores, targets, self.is_multi_label)

    def try_neighbours(self) -> Candidate:
        def of_fold(*arrays: np.ndarray) -> list[np.ndarray]:
            return [knn_scores(*arrays, k) for k in _NEIGHBOURS]

        metrics = list(map(self.metric, self.scores(of_fold)))
        k = _NEIGHBOURS[int(np.argmax(metrics))]
        return Candidate('k-NN', self.pool, f'k={k}', max(metrics), None, self.depth)

    def try_ridge(self) -> Candidate:
        def of_fold(
            train: np.ndarray, targets: np.ndarray, queries: np.ndarray
        ) -> list[np.ndarray]:
            solved = map(Ridge(train, targets).solve, _PENALTIES)
            return [queries @ kernel + bias for kernel, bias in solved]

        scores = self.scores(of_fold)
        metrics = list(map(self.metric, scores))
        best = int(np.argmax(metrics))
        penalty = _PENALTIES[best]
        factor, threshold = self.calibrate(scores[best])

        def train() -> Head:
            rows = self.is_trained_on
            scale = Scale.of(self.inputs[rows])
            kernel, bias = Ridge(scale(self.inputs[rows]), self.targets[rows]).solve(penalty)
            return self.linear_head(scale, factor * kernel, factor * (bias - threshold))

        words = f'penalty={penalty:g}'
        return Candidate('ridge', self.pool, words, max(metrics), train, self.depth)

    def try_trained(
        self, name: str, head: nn.Module, settings: Sequence[Setting], epochs: int, batch_size: int
    ) -> Candidate:
        has_scale = self.pool != 'attention'

        def fit(is_trained_on: np.ndarray, settings: Sequence[Setting]) -> tuple[dict, np.ndarray]:
            scales = [Scale.of(self.inputs[rows]) for rows in is_trained_on if has_scale]
            return train_heads(
                head,
                self.inputs,
                self.targets,
                is_trained_on.astype(np.float32),
                settings,
                scales=Scale.stack(scales) if has_scale else None,
                is_multi_label=self.is_multi_label,
                epochs=epochs,
                batch_size=batch_size,
                seed=self.seed,
                title=f'{name}, {self.pool}',
            )

        _, logits = fit(~self.held_out, settings)
        scores = [
            _join(x[out] for x, out in zip(of_setting, self.held_out, strict=True))
            for of_setting in logits.swapaxes(0, 1)
        ]
        metrics = list(map(self.metric, scores))
        best = int(np.argmax(metrics))
        setting, factor, threshold = settings[best], 1, 0
        if self.is_multi_label:  # a short training leaves sigmoids of rare classes near 50 %
            factor, threshold = self.calibrate(scores[best])

        def train() -> Head:
            rows = self.is_trained_on
            params, _ = fit(rows[None], [setting])
            params = jax.tree.map(lambda x: np.asarray(x[0, 0]), params)
            last = (params if has_scale else params['linear'])['output_projection']
            kernel, bias = factor * last['kernel'], factor * (last['bias'] - threshold)
            if has_scale:
                return self.linear_head(Scale.of(self.inputs[rows]), kernel, bias)
            return Head(
                self.pool,
                {
                    'attention_pool': params['attention_pool'],
                    'output_projection': {'kernel': kernel, 'bias': bias},
                },
            )

        words = f'learning_rate={setting.learning_rate:g}, weight_decay={setting.weight_decay:g}'
        return Candidate(name, self.pool, words, max(metrics), train)

    def linear_head(self, scale: Scale, kernel: np.ndarray, bias: np.ndarray) -> Head:
        return Head(self.pool, {'output_projection': scale.fold(kernel, bias)}, self.depth)


def _join(parts: Iterable[np.ndarray]) -> np.ndarray:
    return np.concatenate(list(parts))


def inputs_of(features: Features, pool: str, depth: int | None = None) -> np.ndarray:
    """What a head of a pool sees, [n·views ...]."""
    if pool == 'attention':
        return features.tokens.reshape(-1, *features.tokens.shape[2:])
    if pool == 'change':
        changes = features.changes[depth]
        return changes.reshape(-1, changes.shape[-1])
    vectors = features.vectors.reshape(-1, *features.vectors.shape[2:])
    return vectors.mean(axis=1) if pool == 'mean' else vectors.reshape(len(vectors), -1)


def merge_views(scores: np.ndarray, num_videos: int) -> np.ndarray:
    """Means over the views: [n·views classes] to [n classes]."""
    return scores.reshape(num_videos, -1, scores.shape[-1]).mean(axis=1)


def join_features(*parts: Features) -> Features:
    """The videos of several splits, one after the other."""
    fields = ([getattr(part, x.name) for part in parts] for x in dataclasses.fields(Features))
    return Features(*(jax.tree.map(lambda *x: np.concatenate(x), *found) for found in fields))


def apply_head(head: Head, features: Features, spec: TransformerSpecification) -> np.ndarray:
    """Scores [n classes] of a trained head for a split."""
    inputs, params = inputs_of(features, head.pool, head.depth), head.params
    num_classes = len(params['output_projection']['bias'])
    if head.pool == 'attention':
        module = AttentiveHead(spec, num_classes)
        params = {
            'attention_pool': params['attention_pool'],
            'linear': {'output_projection': params['output_projection']},
        }
    else:
        module = LinearHead(num_classes)
    params = jax.tree.map(lambda x: x[None, None], params)
    return merge_views(apply_heads(module, params, inputs, 64)[0, 0], len(features.targets))
