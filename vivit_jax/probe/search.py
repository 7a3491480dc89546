"""Tries heads on features, and chooses one by videos that were held out."""

import dataclasses
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Self

import flax.linen as nn
import jax
import numpy as np
import optax

from vivit_jax.layers.specification import TransformerSpecification
from vivit_jax.probe.heads import AttentiveHead, LinearHead, Ridge, knn_scores
from vivit_jax.probe.training import Setting, apply_heads, train_heads

_log = logging.getLogger(__name__)

_NEIGHBOURS = (1, 5, 10, 20)
_PENALTIES = tuple(10.0**power for power in range(-4, 4))
_SCALES = tuple(2.0**power for power in range(10))  # of the scores of a regression, as logits
_LINEAR = tuple(map(Setting._make, itertools.product((1e-4, 3e-4, 1e-3, 3e-3), (0.01, 0.3))))
_ATTENTIVE = tuple(map(Setting._make, itertools.product((3e-3, 1e-2, 3e-2), (0.01,))))
_LARGEST = 8192  # numbers of examples or of features beyond which ridge regression takes minutes


@dataclasses.dataclass(frozen=True)
class Features:
    """The features of a split.

    Attributes:
        labels: int [n].
        vectors: float32 [n views t d].
        tokens: float16 [n views t places d], or None.
        changes: float32 [n views c] of single frames, by the depth of the tokens; may be empty.
    """

    labels: np.ndarray
    vectors: np.ndarray
    tokens: np.ndarray | None = None
    changes: Mapping[int, np.ndarray] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, labels: np.ndarray, arrays: Mapping[str, np.ndarray]) -> Self:
        """Features of labels and of the outputs of `Backbone.forward` for all videos."""
        depths = {name: name.removeprefix('changes_') for name in arrays}
        changes = {int(x): arrays[name] for name, x in depths.items() if x != name}
        return cls(labels, arrays['vectors'], arrays.get('tokens'), changes)


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
        accuracy: part of the held-out videos that are right.
        train: trains the head; None: it can be no part of a model.
        depth: see `Head`.
    """

    name: str
    pool: str
    setting: str
    accuracy: float
    train: Callable[[], Head] | None
    depth: int | None = None


def try_heads(
    features: Features,
    held_out: np.ndarray,
    num_classes: int,
    spec: TransformerSpecification | None = None,
    seed: int = 0,
) -> Iterator[Candidate]:
    """Tries every kind of head, each with its settings.

    Args:
        features: of the videos to train on, and of a validation split, if there is one.
        held_out: bool [folds n]: which videos each fold leaves out of the training. A video that
            all folds leave out belongs to the validation split, and no head is trained on it.
        num_classes: number of classes.
        spec: of the model whose tokens the features have, if they have tokens.
        seed: of what is random.

    Yields:
        Each kind of head with its best setting: the highest accuracy on the videos that were held
        out; equals go to the first.
    """
    has_frames = features.vectors.shape[2] > 1
    pools = [('mean', None), *([('concat', None)] if has_frames else [])]
    if has_frames:
        pools += [('change', depth) for depth in features.changes]
    for pool, depth in pools:
        search = _Search(features, held_out, num_classes, pool, seed, depth)
        yield search.try_neighbours()
        if min(search.inputs.shape) <= _LARGEST:
            yield search.try_ridge()
        else:
            _log.info('No ridge regression: %s features are too many', search.inputs.shape[1])
        if pool != 'change':  # it would take minutes, and was never better than ridge regression
            yield search.try_trained('linear', LinearHead(num_classes), _LINEAR, 60, 64)
    if features.tokens is not None:
        search = _Search(features, held_out, num_classes, 'attention', seed)
        yield search.try_trained('attentive', AttentiveHead(spec, num_classes), _ATTENTIVE, 30, 16)


@dataclasses.dataclass(frozen=True)
class Scale:
    """Subtracts a mean [d], and divides by a deviation [d]."""

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray) -> 'Scale':
        """The scale after which x [n d] has zero mean and unit deviation."""
        return cls(x.mean(axis=0), x.std(axis=0) + 1e-6)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return (x - self.mean) / self.deviation

    def fold(self, kernel: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
        """The linear classifier that does on x what the given one does on scaled x."""
        kernel = kernel / self.deviation[:, None]
        bias = bias - self.mean @ kernel
        return {'kernel': kernel.astype(np.float32), 'bias': bias.astype(np.float32)}


class _Search:
    """Heads of one pool; every view of a video is an example."""

    def __init__(
        self,
        features: Features,
        held_out: np.ndarray,
        num_classes: int,
        pool: str,
        seed: int,
        depth: int | None = None,
    ):
        views = features.vectors.shape[1]
        self.held_out = np.repeat(held_out, views, axis=1)
        self.is_trained_on = ~self.held_out.all(axis=0)
        self.inputs = inputs_of(features, pool, depth)
        if pool != 'attention':
            self.scale = Scale.of(self.inputs[self.is_trained_on])
            self.inputs = self.scale(self.inputs)
        self.pool, self.depth, self.num_classes, self.seed = pool, depth, num_classes, seed
        self.video_labels, self.video_held_out = features.labels, held_out
        self.labels = np.repeat(features.labels, views)

    def accuracy(self, scores: Sequence[np.ndarray]) -> float:
        """The part of the held-out videos that is right, from scores [n·views classes] by fold."""
        right = total = 0
        for of_fold, held_out in zip(scores, self.video_held_out, strict=True):
            of_videos = merge_views(of_fold, len(self.video_labels))
            right += (of_videos.argmax(1) == self.video_labels)[held_out].sum()
            total += held_out.sum()
        return float(right / total)

    def loss(self, logits: Sequence[np.ndarray]) -> float:
        """The cross-entropy of the held-out examples, of logits [n·views classes] by fold."""
        losses = [
            optax.softmax_cross_entropy_with_integer_labels(of_fold, self.labels)[held_out]
            for of_fold, held_out in zip(logits, self.held_out, strict=True)
        ]
        return float(np.concatenate(losses).mean())

    def try_neighbours(self) -> Candidate:
        def accuracy(k: int) -> float:
            return self.accuracy(
                [
                    knn_scores(
                        self.inputs[~out], self.labels[~out], self.inputs, k, self.num_classes
                    )
                    for out in self.held_out
                ]
            )

        best, k = max(((accuracy(k), k) for k in _NEIGHBOURS), key=lambda found: found[0])
        return Candidate('k-NN', self.pool, f'k={k}', best, None, self.depth)

    def try_ridge(self) -> Candidate:
        solvers = [
            Ridge(self.inputs[~out], self.labels[~out], self.num_classes) for out in self.held_out
        ]

        def score(penalty: float) -> list[np.ndarray]:
            solved = (solver.solve(penalty) for solver in solvers)
            return [self.inputs @ kernel + bias for kernel, bias in solved]

        best, penalty = max(
            ((self.accuracy(score(x)), x) for x in _PENALTIES), key=lambda found: found[0]
        )
        scores = score(penalty)
        scale = min(_SCALES, key=lambda scale: self.loss([scale * x for x in scores]))

        def train() -> Head:
            rows = self.is_trained_on
            solver = Ridge(self.inputs[rows], self.labels[rows], self.num_classes)
            kernel, bias = solver.solve(penalty)
            return self.linear_head(scale * kernel, scale * bias)

        return Candidate('ridge', self.pool, f'penalty={penalty:g}', best, train, self.depth)

    def try_trained(
        self, name: str, head: nn.Module, settings: Sequence[Setting], epochs: int, batch_size: int
    ) -> Candidate:
        def fit(weights: np.ndarray, settings: Sequence[Setting]) -> tuple[dict, np.ndarray]:
            return train_heads(
                head,
                self.inputs,
                self.labels,
                weights.astype(np.float32),
                settings,
                epochs=epochs,
                batch_size=batch_size,
                seed=self.seed,
                title=f'{name}, {self.pool}',
            )

        _, logits = fit(~self.held_out, settings)
        accuracies = [self.accuracy(logits[:, index]) for index in range(len(settings))]
        setting = settings[int(np.argmax(accuracies))]

        def train() -> Head:
            params, _ = fit(self.is_trained_on[None], [setting])
            params = jax.tree.map(lambda x: np.asarray(x[0, 0]), params)
            if self.pool == 'attention':
                return Head(
                    self.pool,
                    {
                        'attention_pool': params['attention_pool'],
                        'output_projection': params['linear']['output_projection'],
                    },
                )
            return self.linear_head(**params['output_projection'])

        words = f'learning_rate={setting.learning_rate:g}, weight_decay={setting.weight_decay:g}'
        return Candidate(name, self.pool, words, max(accuracies), train)

    def linear_head(self, kernel: np.ndarray, bias: np.ndarray) -> Head:
        return Head(self.pool, {'output_projection': self.scale.fold(kernel, bias)}, self.depth)


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
    return merge_views(apply_heads(module, params, inputs, 64)[0, 0], len(features.labels))
