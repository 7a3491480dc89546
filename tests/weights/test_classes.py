"""Classifiers of other trainings, for classes in another order and for other classes."""

import numpy as np
import pytest

from vivit_jax.errors import UserError
from vivit_jax.heads import map_heads
from vivit_jax.model_card import ModelCard
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.weights.classes import match_classes
from vivit_jax.weights.weights import Weights


def _weights(label_names):
    """Weights whose classifier has the outputs 0, 1, 2, …"""

    def classifier(names):
        return {'kernel': np.arange(len(names)) * np.ones((2, 1)), 'bias': np.arange(len(names))}

    heads = map_heads(classifier, label_names)
    if isinstance(label_names, dict):
        params = {f'output_projection_{head}': x for head, x in heads.items()}
    else:
        params = {'output_projection': heads}
    card = ModelCard({'name': 'vivit_fe'}, Preprocessing(), label_names)
    return Weights('of a test', card, params, (1, 1, 1))


def test_outputs_follow_the_names():
    found = match_classes(_weights(('Sit', 'stand up', 'wave')), ('wave', 'sit', 'Stand_up'))
    np.testing.assert_array_equal(found.params['output_projection']['bias'], [2, 0, 1])
    np.testing.assert_array_equal(found.params['output_projection']['kernel'], [[2, 0, 1]] * 2)


def test_each_head_follows_its_own_names():
    found = match_classes(
        _weights({'verb': ('cut', 'stir'), 'noun': ('pan', 'pot')}),
        {'verb': ('stir', 'cut'), 'noun': ('pan', 'pot')},
    )
    assert found.params['output_projection_verb']['bias'].tolist() == [1, 0]
    assert found.params['output_projection_noun']['bias'].tolist() == [0, 1]


def test_other_classes_are_an_error_that_names_both_and_the_way_out():
    with pytest.raises(UserError) as caught:
        match_classes(_weights(('sit', 'wave')), ('sit', 'run'))
    for part in ("'sit', 'wave'", "'sit', 'run'", '--config.init.reinit=head'):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ('trained', 'wanted'),
    [
        (('0', '1'), ('sit', 'run')),  # the names of the weights' classes are unknown
        (('sit', 'run'), ('0', '1')),
        (('sit', 'run'), ('sit', 'run', 'wave')),  # refused by its shape
    ],
)
def test_what_cannot_be_matched_is_left_alone(trained, wanted):
    found = match_classes(_weights(trained), wanted)
    assert found.params['output_projection']['bias'].tolist() == [0, 1]
