"""Warns of a training that goes wrong, while it can still be mended."""

import math
from collections import deque
from collections.abc import Iterable, Mapping

import numpy as np

_RISES = 3  # validations in a row
_GAP = 0.30  # of accuracies

_BY_HEART = (
    'the model learns the training videos by heart. What helps: more videos, more augmentation '
    '(augment.randaugment_layers, augment.mixup_alpha), a smaller train.learning_rate or '
    'train.layer_decay, fewer epochs, or only a classifier on a frozen model (vivit_jax.probe)'
)


class Advice:
    """Watches the metrics of a training. It warns of each fault once, also over restarts.

    Args:
        num_steps: of the training.
        steps_per_epoch: so many training steps are averaged.
        batch_size: clips of a step.
        chance: the accuracy of the best constant answer.
        measured: what the run has measured so far: mappings with `step` and metrics.
    """

    def __init__(
        self,
        num_steps: int,
        steps_per_epoch: int,
        batch_size: int,
        chance: float,
        measured: Iterable[Mapping[str, float]] = (),
    ):
        self._num_steps, self._batch_size, self._chance = num_steps, batch_size, chance
        self._accuracies = deque(maxlen=steps_per_epoch)
        self._losses = []
        self._is_late, self._said = False, set()
        for metrics in measured:
            self.add(metrics['step'], metrics)

    def add(self, step: int, metrics: Mapping[str, float]) -> list[str]:
        """Takes the metrics of a step or of a validation, and returns what there is to warn of."""
        if 'train/acc1' in metrics:
            self._accuracies.append(metrics['train/acc1'])
        faults = {}
        if 'val/loss' in metrics:
            self._losses.append(metrics['val/loss'])
            faults['rising'] = self._rising()
        if 'val/acc1' in metrics and self._accuracies:
            faults['gap'] = self._gap(metrics['val/acc1'])
        if not self._is_late and step >= self._num_steps / 5 and self._accuracies:
            self._is_late = True
            faults['chance'] = self._at_chance(step)
        found = {name: text for name, text in faults.items() if text and name not in self._said}
        self._said |= found.keys()
        return list(found.values())

    def _rising(self) -> str:
        last = self._losses[-1 - _RISES :]
        if len(last) <= _RISES or any(np.diff(last) <= 0):
            return ''
        return (
            f'The validation loss has risen {_RISES} times in a row, from {last[0]:.3g} to '
            f'{last[-1]:.3g}: {_BY_HEART}'
        )

    def _gap(self, validated: float) -> str:
        trained = float(np.mean(self._accuracies))
        if trained - validated <= _GAP:
            return ''
        return (
            f'The accuracy is {100 * trained:.0f} % in training and {100 * validated:.0f} % in the '
            f'validation: {_BY_HEART}'
        )

    def _at_chance(self, step: int) -> str:
        trained = float(np.mean(self._accuracies))
        clips = self._batch_size * len(self._accuracies)
        deviation = math.sqrt(self._chance * (1 - self._chance) / clips)
        if trained > self._chance + 2 * deviation:
            return ''
        return (
            f'After {step} of {self._num_steps} steps the accuracy in training is '
            f'{100 * trained:.1f} %, and one answer for all clips has {100 * self._chance:.1f} %: '
            'nothing was learned yet. What helps: another train.learning_rate, ten times smaller '
            'or larger; weights to start from (init_from); a look at the labels of some videos'
        )
