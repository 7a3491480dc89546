"""Which tokens depend on which: one tubelet changes, and the outputs of one block are compared."""

import numpy as np
import pytest

# The grid has 3 times, 2 rows and 2 columns; the changed tubelet is in the second of two clips.
CLIP, TIME, PLACE = 1, 1, 2

pytestmark = pytest.mark.usefixtures('exact_matmuls')


@pytest.fixture
def change(random_clip):
    """A clip, and the clip with another pixel in one tubelet."""
    clip = random_clip((2, 6, 16, 16, 3))
    return clip, clip.at[CLIP, 2 * TIME, 12, 3].add(1)  # the second row, first column


def _moved(before, after):
    """The places at which two arrays differ along the last axis."""
    return np.abs(np.asarray(after) - np.asarray(before)).max(-1) > 1e-5


def _frame():
    expected = np.zeros((2, 3, 4), bool)
    expected[CLIP, TIME] = True
    return expected


def _place():
    expected = np.zeros((2, 3, 4), bool)
    expected[CLIP, :, PLACE] = True
    return expected


def _clip():
    expected = np.zeros((2, 3, 4), bool)
    expected[CLIP] = True
    return expected


def test_joint_attention_moves_all_tokens_of_the_clip(
    create_tiny, random_params, encoder_tokens, change
):
    model = create_tiny('vivit_joint', num_layers=1)
    params = random_params(model, change[0])
    moved = _moved(*(encoder_tokens(model, params, clip) for clip in change))
    np.testing.assert_array_equal(moved, [[False] * 13, [True] * 13])


@pytest.mark.parametrize('num_layers', [1, 2])
def test_spatial_encoder_moves_only_tokens_of_the_same_time(
    create_tiny, random_params, encoder_tokens, change, num_layers
):
    model = create_tiny('vivit_fe', num_layers=num_layers)
    params = random_params(model, change[0])
    moved = _moved(*(encoder_tokens(model, params, clip) for clip in change))
    np.testing.assert_array_equal(moved[..., 1:], _frame())
    np.testing.assert_array_equal(moved[..., 0], _frame().any(-1))  # class tokens


def test_dot_product_moves_only_tokens_of_the_same_time_or_place(
    create_tiny, random_params, encoder_tokens, change
):
    model = create_tiny('vivit_fdp', num_layers=1)
    params = random_params(model, change[0])
    moved = _moved(*(encoder_tokens(model, params, clip) for clip in change))
    np.testing.assert_array_equal(moved, _frame() | _place())


@pytest.mark.parametrize(('silent_head', 'expected'), [(0, _frame()), (1, _place())])
def test_first_heads_of_the_dot_product_attend_along_time(
    create_tiny, random_params, encoder_tokens, change, silent_head, expected
):
    model = create_tiny('vivit_fdp', num_layers=1)
    params = random_params(model, change[0])
    block = params['Transformer']['encoderblock_0']
    block['MultiHeadDotProductAttention_0']['out']['kernel'][silent_head] = 0
    moved = _moved(*(encoder_tokens(model, params, clip) for clip in change))
    np.testing.assert_array_equal(moved, expected)


@pytest.mark.parametrize('order', ['space_time', 'time_space'])
@pytest.mark.parametrize(
    ('silent', 'expected'), [(None, _clip()), ('time', _frame()), ('space', _place())]
)
def test_self_attention_along_one_axis_moves_only_tokens_on_it(
    create_tiny, random_params, encoder_tokens, change, order, silent, expected
):
    model = create_tiny('vivit_fsa', num_layers=1, attention_order=order)
    params = random_params(model, change[0])
    if silent:
        block = params['Transformer']['encoderblock_0']
        block[f'MultiHeadDotProductAttention_{silent}']['out']['kernel'][:] = 0
    moved = _moved(*(encoder_tokens(model, params, clip) for clip in change))
    np.testing.assert_array_equal(moved, expected)


@pytest.mark.parametrize(
    ('order', 'expected_times', 'expected_places'),
    [
        ('space_time', _frame().any(-1), _clip().any(1)),  # time attends to what space mixed
        ('time_space', _clip().any(-1), _place().any(1)),
    ],
)
def test_second_self_attention_sees_what_the_first_one_mixed(
    create_tiny, random_params, change, order, expected_times, expected_places
):
    model = create_tiny('vivit_fsa', num_layers=1, attention_order=order)
    variables = {'params': random_params(model, change[0])}
    before, after = (
        model.apply(variables, clip, capture_attention=True).intermediates for clip in change
    )
    for axis, expected in (('space', expected_times), ('time', expected_places)):
        name = f'MultiHeadDotProductAttention_{axis}'
        weights = (x['Transformer']['encoderblock_0'][name][axis] for x in (before, after))
        np.testing.assert_array_equal(_moved(*weights).any((-2, -1)), expected)
