"""Warnings of trainings that go wrong."""

import pytest

from vivit_jax.train.advice import Advice

NUM_STEPS, PER_EPOCH = 100, 10


def _warnings(train, validations=(), measured=(), chance=0.25):
    """What is said in a training, by step.

    Args:
        train: step -> accuracy.
        validations: metrics of the validations after steps 10, 20 and so on.
        measured: see `Advice`.
    """
    advice = Advice(NUM_STEPS, PER_EPOCH, 16, chance, measured)
    found = {}
    for step in range(1, NUM_STEPS + 1):
        lines = advice.add(step, {'train/acc1': train(step)})
        if step % 10 == 0 and step // 10 <= len(validations):
            lines += advice.add(step, validations[step // 10 - 1])
        if lines:
            found[step] = lines
    return found


def test_a_training_that_learns_gets_no_warning():
    validations = [{'val/acc1': 0.1 * k, 'val/loss': 2 - 0.1 * k} for k in range(1, 10)]
    assert _warnings(lambda step: step / 100 + 0.2, validations) == {}


def test_chance_after_a_fifth_of_the_steps_is_told_once():
    found = _warnings(lambda step: 0.24)
    assert list(found) == [20]
    (line,) = found[20]
    assert 'After 20 of 100 steps' in line and '24.0 %' in line and '25.0 %' in line
    assert 'train.learning_rate' in line
    # More than two standard deviations of 160 clips above chance is no chance.
    assert _warnings(lambda step: 0.25 + 2.1 * (0.25 * 0.75 / 160) ** 0.5) == {}
    # What is learned later counts no longer, and the first epoch does not count.
    assert _warnings(lambda step: 0.0 if step <= 10 else 0.9) == {}


@pytest.mark.parametrize(
    ('losses', 'step'),
    [
        ((1.0, 1.1, 1.2, 1.3, 1.4), 40),
        ((1.0, 0.8, 0.9, 1.0, 1.1), 50),
        ((1.0, 1.1, 1.2, 1.1, 1.2, 1.3), None),
        ((1.0, 1.1, 1.2, 1.2, 1.3), None),
    ],
)
def test_a_validation_loss_that_rises_three_times_is_told_once(losses, step):
    found = _warnings(lambda _: 0.9, [{'val/loss': loss} for loss in losses])
    assert list(found) == ([step] if step else [])
    if step:
        assert 'validation loss has risen 3 times' in found[step][0]


def test_a_gap_of_more_than_thirty_points_is_told_once():
    validations = [{'val/acc1': x} for x in (0.55, 0.45, 0.7, 0.4)]
    found = _warnings(lambda step: 0.8, validations)
    assert list(found) == [20]
    assert '80 % in training and 45 % in the validation' in found[20][0]
    assert 'augment.' in found[20][0]


def test_a_resumed_training_knows_what_was_measured():
    measured = [{'step': k, 'val/loss': 1 + k / 10} for k in (1, 2, 3)]
    found = _warnings(lambda _: 0.9, [{'val/loss': 1.5}], measured)
    assert list(found) == [10] and 'risen' in found[10][0]
