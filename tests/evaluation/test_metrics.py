import numpy as np
import pytest

from vivit_jax.evaluation.metrics import classification_metrics


def _reference(scores, labels, failed):
    """One video at a time; equal scores are sorted so that the label comes last."""
    losses, ranks = [], []
    for row, label, is_failed in zip(np.float64(scores), labels, failed, strict=True):
        order = sorted(range(len(row)), key=lambda c: (-row[c], c == label))
        ranks.append(np.inf if is_failed else order.index(label))
        if not is_failed:
            losses.append(np.log(np.exp(row - row.max()).sum()) + row.max() - row[label])
    ranks, labels = np.array(ranks), np.array(labels)
    return {
        'loss': np.mean(losses),
        'acc1': np.mean(ranks == 0),
        'acc5': np.mean(ranks < 5),
        'mean_class_acc': np.mean([np.mean(ranks[labels == c] == 0) for c in set(labels)]),
    }


@pytest.mark.parametrize('num_classes', [2, 4, 5, 9])
@pytest.mark.parametrize('decimals', [0, 3], ids=['ties', 'distinct'])
@pytest.mark.parametrize('num_failed', [0, 7])
def test_metrics_equal_loop_over_videos(num_classes, decimals, num_failed):
    rng = np.random.default_rng(num_classes)
    scores = rng.normal(0, 2, (60, num_classes)).round(decimals).astype(np.float32)
    labels = rng.integers(0, num_classes, 60).astype(np.int32)
    failed = np.arange(60) % 8 == 3 if num_failed else np.zeros(60, bool)
    metrics = classification_metrics(scores, labels, failed)
    expected = _reference(scores, labels, failed)
    assert metrics.keys() == expected.keys()
    for name, value in metrics.items():
        assert type(value) is float
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, err_msg=name)


def test_metrics_of_a_worked_example():
    logs = np.log([[0.5, 0.3, 0.2], [0.2, 0.7, 0.1], [0.4, 0.5, 0.1], [0.1, 0.1, 0.8]])
    metrics = classification_metrics(logs, np.array([0, 1, 0, 0]))
    np.testing.assert_allclose(metrics['loss'], -np.log([0.5, 0.7, 0.4, 0.1]).mean())
    assert metrics['acc1'] == 0.5
    assert metrics['acc5'] == 1  # there are three classes only
    np.testing.assert_allclose(metrics['mean_class_acc'], (1 / 3 + 1) / 2)


@pytest.mark.parametrize('value', [0.0, -3.0])
def test_constant_scores_count_as_wrong(value):
    metrics = classification_metrics(np.full((8, 8), value), np.arange(8))
    assert (metrics['acc1'], metrics['acc5'], metrics['mean_class_acc']) == (0, 0, 0)
    np.testing.assert_allclose(metrics['loss'], np.log(8))


def test_scores_that_are_not_numbers_count_as_wrong():
    scores = np.full((8, 8), np.nan, np.float32)
    metrics = classification_metrics(scores, np.arange(8))
    assert (metrics['acc1'], metrics['acc5'], metrics['mean_class_acc']) == (0, 0, 0)


def test_failed_videos_are_wrong_and_left_out_of_the_loss():
    scores = np.float32([[5, 0], [5, 0], [0, 5], [0, 5]])
    labels = np.array([0, 0, 1, 1])
    whole = classification_metrics(scores, labels)
    metrics = classification_metrics(scores, labels, np.array([True, False, False, False]))
    assert (whole['acc1'], metrics['acc1'], metrics['acc5']) == (1, 0.75, 0.75)
    assert metrics['mean_class_acc'] == 0.75
    np.testing.assert_allclose(metrics['loss'], whole['loss'])

    metrics = classification_metrics(scores, labels, np.ones(4, bool))
    assert metrics['acc1'] == 0
    assert np.isnan(metrics['loss'])


def test_large_scores_do_not_overflow():
    metrics = classification_metrics(np.float32([[1e4, 0], [1e4, 0]]), np.array([0, 1]))
    assert metrics['acc1'] == 0.5
    assert np.isfinite(metrics['loss']) and metrics['loss'] > 10
