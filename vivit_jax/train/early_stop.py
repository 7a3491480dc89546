"""Ends a training that no longer gets better."""

import math
from collections.abc import Iterable, Mapping


class EarlyStop:
    """Counts the validations since the best one.

    Args:
        patience: so many validations in a row may be no better than the best before them; 0: any
            number.
        metric: 'acc1' or 'map', of which more is better, or 'loss', of which less is.
        validated: what the run has measured so far: mappings with `step` and metrics.
    """

    def __init__(self, patience: int, metric: str, validated: Iterable[Mapping[str, float]] = ()):
        self._patience, self._name = patience, f'val/{metric}'
        self._sign = -1 if metric == 'loss' else 1
        self._best, self._best_step, self._count = -math.inf, None, 0
        self._last_step = 0
        for metrics in validated:
            self.add(metrics['step'], metrics)

    def add(self, step: int, metrics: Mapping[str, float]):
        """Takes the metrics of a step, which may lack those of a validation; each step once."""
        if self._name not in metrics or step <= self._last_step:
            return
        self._last_step = step
        value = self._sign * metrics[self._name]
        if value > self._best:
            self._best, self._best_step, self._count = value, step, 0
        else:  # NaN is not better either
            self._count += 1

    @property
    def is_reached(self) -> bool:
        """Whether the training is to end."""
        return 0 < self._patience <= self._count

    def __str__(self) -> str:
        best = f'{self._sign * self._best:.4g}'
        return (
            f'no better than {self._name}={best} of step {self._best_step} in {self._count} '
            f'validation(s) since (train.early_stop_validations={self._patience})'
        )
