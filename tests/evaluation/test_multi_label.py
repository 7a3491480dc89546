import numpy as np
import pytest

from vivit_jax.evaluation.metrics import average_precisions, multi_label_metrics
from vivit_jax.evaluation.results import Results, describe_results
from vivit_jax.evaluation.views import merge_views, probabilities

NONE_FAILED = np.zeros(40, bool)


def _data(decimals=5, num_classes=6):
    rng = np.random.default_rng(decimals)
    scores = rng.normal(0, 2, (40, num_classes)).round(decimals).astype(np.float32)
    labels = (rng.random((40, num_classes)) < np.linspace(0.05, 0.7, num_classes)).astype(
        np.float32
    )
    labels[3] = 0  # a video without a label
    return scores, labels


def _by_definition(scores, labels, failed):
    """The sum over all thresholds of precision times the increase of recall."""
    found = []
    for score, label in zip(scores.T, np.float64(labels.T), strict=True):
        total, recall = 0.0, 0.0
        for threshold in sorted(set(score), reverse=True):
            retrieved = [i for i in range(len(score)) if score[i] >= threshold and not failed[i]]
            right = sum(label[i] for i in retrieved)
            new_recall = right / label.sum() if label.sum() else np.nan
            total += (new_recall - recall) * (right / len(retrieved) if retrieved else 0)
            recall = new_recall
        found.append(total)
    return np.array(found)


@pytest.mark.parametrize('decimals', [0, 5], ids=['ties', 'distinct'])
@pytest.mark.parametrize('num_failed', [0, 9])
def test_average_precision_equals_its_definition(decimals, num_failed):
    scores, labels = _data(decimals)
    failed = np.arange(40) % 4 == 1 if num_failed else NONE_FAILED
    found = average_precisions(scores, labels, failed)
    np.testing.assert_allclose(found, _by_definition(scores, labels, failed), rtol=1e-9)
    assert len(np.unique(found)) > 3


def test_a_worked_example():
    scores, labels = np.float32([[3], [2], [1], [0]]), np.float32([[1], [0], [1], [0]])
    found = average_precisions(scores, labels, np.zeros(4, bool))
    np.testing.assert_allclose(found, [(1 + 2 / 3) / 2])
    found = average_precisions(scores, labels, np.array([True, False, False, False]))
    np.testing.assert_allclose(found, [(0 + 1 / 2) / 2])  # the first is never found


def test_constant_scores_give_the_frequency_of_a_class():
    _, labels = _data()
    found = average_precisions(np.ones_like(labels), labels, NONE_FAILED)
    np.testing.assert_allclose(found, labels.mean(0))


def test_mean_leaves_out_classes_without_videos():
    scores, labels = _data()
    labels[:, 2] = 0
    of_classes = average_precisions(scores, labels, NONE_FAILED)
    assert np.isnan(of_classes[2]) and np.isfinite(np.delete(of_classes, 2)).all()
    metrics = multi_label_metrics(scores, labels, NONE_FAILED)
    np.testing.assert_allclose(metrics['map'], np.delete(of_classes, 2).mean())
    results = Results(scores[:, None], labels, {})
    assert results.metrics('logits') == metrics
    text = describe_results(results, 'val', '1x1', metrics)
    assert f'mAP {100 * metrics["map"]:.2f} %' in text and 'top-1' not in text
    assert 'mAP leaves out 1 of 6 classes, which no video here has' in text


def test_loss_is_binary_cross_entropy_of_videos_that_were_read():
    scores, labels = _data()
    failed = np.arange(40) < 5
    p = 1 / (1 + np.exp(-np.float64(scores)))
    losses = -np.log(np.where(labels == 1, p, 1 - p))[5:]
    metrics = multi_label_metrics(scores, labels, failed)
    np.testing.assert_allclose(metrics['loss'], losses.mean(), rtol=1e-6)
    assert type(metrics['loss']) is type(metrics['map']) is float


@pytest.mark.parametrize('scale', [1, 60])
def test_merged_probabilities_are_the_mean_of_sigmoids(scale):
    logits = np.random.default_rng(0).normal(0, scale, (4, 6, 5)).astype(np.float32)
    expected = (1 / (1 + np.exp(-np.float64(logits)))).mean(1)
    merged = merge_views(logits, 'probabilities', is_multi_label=True)
    np.testing.assert_allclose(1 / (1 + np.exp(-np.float64(merged))), expected, rtol=1e-4)
    np.testing.assert_allclose(
        merge_views(logits, 'logits', is_multi_label=True), logits.mean(1), rtol=1e-5
    )


def test_scores_that_round_to_1_keep_their_order():
    merged = merge_views(np.float32([[[30, 40, 90]]]), 'probabilities', is_multi_label=True)
    np.testing.assert_allclose(merged, [[30, 40, 90]], rtol=1e-6)


def test_probabilities_of_any_number_of_labels_are_sigmoids():
    logits = np.float32([[-200, -1, 0, 2, 200]])
    expected = 1 / (1 + np.exp(-np.float64(logits)))
    np.testing.assert_allclose(probabilities(logits, True), expected, rtol=1e-6, atol=1e-30)


def test_a_loss_of_ln_2_is_a_warning():
    _, labels = _data()
    results = Results(np.zeros((40, 1, 6), np.float32), labels, {})
    text = describe_results(results, 'val', '1x1', results.metrics('logits'))
    assert 'the loss is ln(2), that of equal probabilities for yes and no' in text
