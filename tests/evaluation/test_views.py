import numpy as np
import pytest

from vivit_jax.errors import UserError
from vivit_jax.evaluation.views import merge_views, parse_views, softmax


@pytest.mark.parametrize(
    ('views', 'expected'), [('1x1', (1, 1)), ('4x3', (4, 3)), ('10x20', (10, 20))]
)
def test_views_are_temporal_then_spatial(views, expected):
    assert parse_views(views) == expected


@pytest.mark.parametrize(
    'views', ['', '4', '4x', 'x3', '0x3', '4x0', '4X3', '4x3x1', '-1x3', '4x3 ']
)
def test_bad_views_are_an_error_that_names_them(views):
    with pytest.raises(UserError, match=r'eval\.views=.*temporal x spatial') as error:
        parse_views(views)
    assert repr(views) in str(error.value)


def _logits():
    return np.random.default_rng(0).normal(0, 3, (4, 6, 5)).astype(np.float32)


def _probabilities(logits):
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def test_merged_logits_are_their_mean():
    expected = np.stack([sum(video) / 6 for video in np.float64(_logits())])
    np.testing.assert_allclose(merge_views(_logits(), 'logits'), expected, rtol=1e-5, atol=1e-6)


def test_merged_probabilities_are_logarithm_of_their_mean():
    expected = _probabilities(np.float64(_logits())).mean(1)
    merged = merge_views(_logits(), 'probabilities')
    np.testing.assert_allclose(np.exp(merged), expected, rtol=1e-5)
    np.testing.assert_allclose(np.exp(merged).sum(-1), 1, rtol=1e-5)


def test_merging_rules_can_disagree():
    # One view is very sure of class 1, two lean to class 0.
    logits = np.float32([[[0, 10], [4, 0], [4, 0]]])
    assert merge_views(logits, 'logits').argmax() == 1
    assert merge_views(logits, 'probabilities').argmax() == 0


def test_merging_of_probability_zero_is_finite():
    assert np.isfinite(merge_views(np.float32([[[0, 1000]]]), 'probabilities')).all()


def test_unknown_merging_rule_is_an_error():
    with pytest.raises(UserError, match=r"eval\.merge='mean' must be 'logits' or 'probabilities'"):
        merge_views(_logits(), 'mean')


def test_softmax_equals_formula_and_does_not_overflow():
    np.testing.assert_allclose(softmax(_logits()), _probabilities(_logits()), rtol=1e-5)
    shifted = softmax(_logits() + np.float32(2**10))
    np.testing.assert_allclose(shifted, softmax(_logits()), rtol=1e-3)
