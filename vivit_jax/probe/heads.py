"""The heads that a probe tries."""

import flax.linen as nn
import jax
import numpy as np

from vivit_jax.evaluation.views import softmax
from vivit_jax.layers.pooling import AttentionPool
from vivit_jax.layers.specification import TransformerSpecification


class LinearHead(nn.Module):
    """A linear classifier of vectors [b d], which starts at zero."""

    num_classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        zeros = nn.initializers.zeros
        return nn.Dense(self.num_classes, kernel_init=zeros, name='output_projection')(x)


class AttentiveHead(nn.Module):
    """Pooling by attention of tokens [b t n d], and a linear classifier."""

    spec: TransformerSpecification
    num_classes: int

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        features = AttentionPool(self.spec, name='attention_pool')(tokens)
        return LinearHead(self.num_classes, name='linear')(features)


def knn_scores(train: np.ndarray, targets: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Parts [m classes] of the votes of the k nearest neighbours, each of exp(cosine / 0.07).

    A neighbour votes for each of its classes.

    Source: k-NN evaluation of Wu et al. 2018 (arXiv 1805.01978, section 3.4).

    Args:
        train: [n d].
        targets: [n classes], 1 for each class of an example and 0 for the others.
        queries: [m d].
        k: neighbours; more than n are n.
    """
    train, queries = (
        x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-12) for x in (train, queries)
    )
    cosines = queries @ train.T
    nearest = np.argsort(-cosines, axis=1, kind='stable')[:, :k]
    votes = np.zeros_like(cosines)
    parts = softmax(np.take_along_axis(cosines, nearest, axis=1) / 0.07)
    np.put_along_axis(votes, nearest, parts, axis=1)
    return votes @ targets


class Ridge:
    """Ridge regression, for any number of penalties after one decomposition.

    Minimizes `‖X W + b - Y‖² + λ n ‖W‖²` over W and b, with X [n d] of zero mean.

    Args:
        x: [n d].
        targets: Y [n classes], 1 for each class of an example and 0 for the others.
    """

    def __init__(self, x: np.ndarray, targets: np.ndarray):
        x = x.astype(np.float64)
        self._mean = x.mean(axis=0)
        self._x = x - self._mean
        self._target_mean = targets.mean(axis=0, dtype=np.float64)
        self._targets = targets - self._target_mean
        self._is_dual = len(x) < x.shape[1]
        matrix = self._x @ self._x.T if self._is_dual else self._x.T @ self._x
        self._values, self._vectors = np.linalg.eigh(matrix)

    def solve(self, penalty: float) -> tuple[np.ndarray, np.ndarray]:
        """The kernel [d classes] and the bias [classes] for a penalty λ > 0."""
        inverse = 1 / (self._values.clip(0) + penalty * len(self._x))
        right = self._targets if self._is_dual else self._x.T @ self._targets
        solved = self._vectors @ (inverse[:, None] * (self._vectors.T @ right))
        kernel = self._x.T @ solved if self._is_dual else solved
        return kernel, self._target_mean - self._mean @ kernel
