import itertools

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


def _two_heads(num_videos=50, seed=3):
    rng = np.random.default_rng(seed)
    scores = {
        'verb': rng.normal(0, 1, (num_videos, 4)).astype(np.float32),
        'noun': rng.normal(0, 1, (num_videos, 6)).astype(np.float32),
    }
    # Labels that the scores know something of.
    labels = {
        head: (x + rng.normal(0, 1, x.shape)).argmax(1).astype(np.int32)
        for head, x in scores.items()
    }
    return scores, labels


def test_action_accuracy_equals_ranking_of_all_products():
    scores, labels = _two_heads()
    failed = np.arange(50) % 9 == 2
    ranks = []
    for video in range(50):
        p = {h: np.exp(np.float64(x[video])) / np.exp(x[video]).sum() for h, x in scores.items()}
        pairs = sorted(
            itertools.product(range(4), range(6)),
            key=lambda pair: -p['verb'][pair[0]] * p['noun'][pair[1]],
        )
        ranks.append(pairs.index((labels['verb'][video], labels['noun'][video])))
    ranks = np.where(failed, 99, ranks)
    metrics = classification_metrics(scores, labels, failed)
    assert 0 < np.mean(ranks == 0) < np.mean(ranks < 5) < 1
    assert metrics['acc1'] == pytest.approx(np.mean(ranks == 0))
    assert metrics['acc5'] == pytest.approx(np.mean(ranks < 5))


def test_metrics_of_heads_are_those_of_each_alone():
    scores, labels = _two_heads()
    metrics = classification_metrics(scores, labels)
    of_heads = {head: classification_metrics(scores[head], labels[head]) for head in scores}
    for head, expected in of_heads.items():
        assert {name: metrics[f'{head}/{name}'] for name in expected} == expected
    assert metrics.keys() == {'loss', 'acc1', 'acc5'} | {
        f'{head}/{name}' for head in of_heads for name in of_heads[head]
    }
    assert metrics['loss'] == pytest.approx(np.mean([x['loss'] for x in of_heads.values()]))


def test_action_of_a_worked_example():
    # Products: (0, 0) .48, (0, 1) .12, (1, 0) .32, (1, 1) .08
    scores = {'verb': np.log([[0.6, 0.4]]), 'noun': np.log([[0.8, 0.2]])}
    found = {
        (verb, noun): classification_metrics(
            scores, {'verb': np.array([verb]), 'noun': np.array([noun])}
        )
        for verb, noun in itertools.product(range(2), range(2))
    }
    assert {labels: metrics['acc1'] for labels, metrics in found.items()} == {
        (0, 0): 1,
        (0, 1): 0,
        (1, 0): 0,
        (1, 1): 0,
    }
    assert found[1, 0]['verb/acc1'] == 0 and found[1, 0]['noun/acc1'] == 1


def test_right_action_needs_every_head_right():
    scores, labels = _two_heads()
    right = [scores[head].argmax(1) == labels[head] for head in scores]
    metrics = classification_metrics(scores, labels)
    assert metrics['acc1'] == pytest.approx(np.mean(right[0] & right[1]))


def test_constant_scores_of_heads_count_as_wrong():
    scores = {'verb': np.zeros((3, 4), np.float32), 'noun': np.zeros((3, 6), np.float32)}
    metrics = classification_metrics(scores, dict.fromkeys(scores, np.arange(3)))
    assert (metrics['acc1'], metrics['acc5']) == (0, 0)
