"""The scale of the inputs of a head."""

from typing import NamedTuple, Self

import jax
import numpy as np


class Scale(NamedTuple):
    """Subtracts a mean [d], and divides by a deviation [d]."""

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, x: np.ndarray) -> Self:
        """The scale after which x [n d] has zero mean and unit deviation."""
        return cls(x.mean(axis=0), x.std(axis=0) + 1e-6)

    @classmethod
    def stack(cls, scales: list[Self]) -> Self:
        """Several scales in one, with a mean and a deviation [scales d]."""
        return cls(*map(np.stack, zip(*scales, strict=True)))

    def __call__(self, x: np.ndarray | jax.Array) -> np.ndarray | jax.Array:
        return (x - self.mean) / self.deviation

    def fold(self, kernel: np.ndarray, bias: np.ndarray) -> dict[str, np.ndarray]:
        """The linear classifier that does on x what the given one does on scaled x."""
        kernel = kernel / self.deviation[:, None]
        bias = bias - self.mean @ kernel
        return {'kernel': kernel.astype(np.float32), 'bias': bias.astype(np.float32)}
