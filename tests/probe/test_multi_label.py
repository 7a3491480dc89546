"""Heads for videos with any number of labels."""

import numpy as np
import pytest

from vivit_jax.annotations.dataset import LabeledVideo
from vivit_jax.models.registry import create_model
from vivit_jax.probe.folds import draw_folds
from vivit_jax.probe.heads import LinearHead
from vivit_jax.probe.losses import calibrate, cross_entropies
from vivit_jax.probe.search import Features, apply_head, try_heads
from vivit_jax.probe.training import Setting, train_heads

pytestmark = pytest.mark.usefixtures('exact_matmuls')


SPEC = create_model('vivit_fe', size='Ti/16x2', hidden_size=8, num_heads=2, num_classes=3).spec


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def mean_average_precision(scores, targets):
    """The mean precision at each video of a class, without equal scores."""
    found = []
    for x, y in zip(scores.T, targets.T, strict=True):
        ranked = y[np.argsort(-x)]
        found.append((ranked.cumsum() / np.arange(1, len(y) + 1))[ranked > 0].mean())
    return np.mean(found)


def draw(count, rng, views=1):
    """Each class adds to a number of the vectors; a third of the videos has no class."""
    targets = (rng.random((count, 3)) < [0.5, 0.3, 0.15]).astype(np.float32)
    vectors = rng.normal(3, 1, (count, views, 1, 8)).astype(np.float32)
    vectors[..., :3] += 2 * targets[:, None, None]
    tokens = np.repeat(vectors[:, :, :, None], 2, axis=3)
    vectors[..., 5] *= 100  # noise that the scale makes small
    return Features(targets, vectors, tokens)


def test_cross_entropies_are_minus_the_logarithms_of_the_right_answers():
    logits, targets = np.array([[2.0, -1.0], [0.5, 3.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])
    right = np.where(targets > 0, sigmoid(logits), 1 - sigmoid(logits))
    found = cross_entropies(logits, targets, is_multi_label=True)
    np.testing.assert_allclose(found, -np.log(right).mean(axis=1), rtol=1e-5)
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = cross_entropies(logits, targets, is_multi_label=False)
    np.testing.assert_allclose(found, -np.log(softmax[targets > 0]), rtol=1e-5)


def test_calibrated_sigmoids_are_the_probabilities_of_the_classes():
    rng = np.random.default_rng(0)
    logits = rng.normal([-1, 1, -3], 2, (4000, 3))
    targets = rng.random((4000, 3)) < sigmoid(logits)
    targets[:, 2] = False
    # Scores of which the logits are 8 (score - threshold).
    scale, thresholds = calibrate(logits / 8 + [0.1, 0.2, 0.3], targets, is_multi_label=True)
    assert scale == 8
    np.testing.assert_allclose(thresholds[:2], [0.1, 0.2], atol=0.02)
    found = sigmoid(scale * (logits / 8 + [0.1, 0.2, 0.3] - thresholds)).mean(axis=0)
    np.testing.assert_allclose(found, targets.mean(axis=0), atol=1e-4)
    assert calibrate(logits, targets, is_multi_label=False)[1].tolist() == [0, 0, 0]


def test_every_class_has_a_classifier_of_its_own():
    rng = np.random.default_rng(0)
    x, targets = rng.normal(size=(16, 5)).astype(np.float32), rng.integers(0, 2, (16, 3))
    weights, settings = np.ones((1, 16), np.float32), [Setting(0.03, 0.1)]
    how = {'is_multi_label': True, 'epochs': 4, 'batch_size': 8}
    _, logits = train_heads(LinearHead(3), x, targets, weights, settings, **how)
    for k in range(3):
        of_class = targets[:, k : k + 1]
        _, alone = train_heads(LinearHead(1), x, of_class, weights, settings, **how)
        np.testing.assert_allclose(logits[..., k : k + 1], alone, rtol=1e-3, atol=1e-5)


def test_smoothing_is_shared_by_yes_and_no():
    targets = np.array([[1, 0, 1], [1, 0, 0], [1, 0, 0], [1, 0, 0]])
    params, _ = train_heads(  # of inputs that say nothing
        LinearHead(3),
        np.zeros((4, 2), np.float32),
        targets,
        np.ones((1, 4), np.float32),
        [Setting(0.1, 0.0)],
        is_multi_label=True,
        epochs=300,
        batch_size=4,
    )
    found = sigmoid(np.asarray(params['output_projection']['bias'])[0, 0])
    np.testing.assert_allclose(found, 0.9 * targets.mean(axis=0) + 0.05, atol=1e-3)


def test_folds_share_the_classes():
    rng = np.random.default_rng(0)
    targets = (rng.random((60, 4)) < [0.6, 0.4, 0.2, 0.1]).astype(int)
    videos = [LabeledVideo(f'{i}.mp4', tuple(np.flatnonzero(x))) for i, x in enumerate(targets)]
    folds = draw_folds(videos, targets, seed=0)
    counts = np.array([targets[folds == fold].sum(axis=0) for fold in range(5)])
    assert np.ptp(np.bincount(folds)) <= 2 and (np.ptp(counts, axis=0) <= 2).all()


@pytest.fixture(scope='module')
def searched():
    features = draw(160, np.random.default_rng(0), views=2)
    held_out = np.arange(160) % 4 == np.arange(4)[:, None]
    found = {x.name: x for x in try_heads(features, held_out, SPEC, is_multi_label=True)}
    return features, held_out, found


def folds_of(features, held_out):
    """Inputs and targets to train on, and held-out inputs, scaled by the former; of every view."""
    for out in held_out:
        x = features.vectors[:, :, 0].astype(float)
        train = x[~out].reshape(-1, x.shape[-1])
        mean, deviation = train.mean(axis=0), train.std(axis=0)
        yield (train - mean) / deviation, features.targets[~out], (x[out] - mean) / deviation


def test_neighbours_are_chosen_by_mean_average_precision(searched):
    features, held_out, found = searched
    scores = []
    for train, targets, queries in folds_of(features, held_out):
        targets = np.repeat(targets, 2, axis=0)
        train /= np.linalg.norm(train, axis=1, keepdims=True)
        for views in queries:
            of_video = []
            for query in views:
                cosines = train @ query / np.linalg.norm(query)
                nearest = np.argsort(-cosines)[:20]
                votes = np.exp(cosines[nearest] / 0.07)
                of_video.append(votes @ targets[nearest] / votes.sum())
            scores.append(np.mean(of_video, axis=0))
    assert found['k-NN'].setting == 'k=20'
    expected = mean_average_precision(np.array(scores), in_folds(features.targets, held_out))
    assert found['k-NN'].metric == pytest.approx(expected, abs=1e-4)


def test_a_regression_is_chosen_by_mean_average_precision(searched):
    features, held_out, found = searched
    best = 0
    for penalty in 10.0 ** np.arange(-4, 4):
        scores = []
        for train, targets, queries in folds_of(features, held_out):
            targets = np.repeat(targets, 2, axis=0)  # the normal equations, of centred inputs
            matrix = train.T @ train + penalty * len(train) * np.eye(8)
            kernel = np.linalg.solve(matrix, train.T @ (targets - targets.mean(axis=0)))
            scores.extend(queries.mean(axis=1) @ kernel + targets.mean(axis=0))
        targets = in_folds(features.targets, held_out)
        best = max(best, mean_average_precision(np.array(scores), targets))
    assert found['ridge'].metric == pytest.approx(best, abs=1e-4)


def in_folds(targets, held_out):
    return np.concatenate([targets[out] for out in held_out])


@pytest.mark.parametrize('name', ['ridge', 'linear', 'attentive'])
def test_heads_find_all_classes_of_a_video(searched, name):
    _, _, found = searched
    test = draw(1000, np.random.default_rng(1), views=2)
    assert found[name].metric > 0.8  # chance is 0.3
    scores = apply_head(found[name].train(), test, SPEC)
    assert mean_average_precision(scores, test.targets) > 0.85
    # Sigmoids are as large as classes are frequent, and most answers above 50 % are right.
    assert np.abs(sigmoid(scores).mean(axis=0) - test.targets.mean(axis=0)).max() < 0.1
    assert ((scores > 0) == test.targets).mean() > 0.8
