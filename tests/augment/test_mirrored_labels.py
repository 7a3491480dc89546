import jax.numpy as jnp
import numpy as np
import pytest

from vivit_jax.augment.mirrored_labels import find_directions, mirrored_labels
from vivit_jax.augment.targets import swap_labels
from vivit_jax.errors import UserError

LEFT_RIGHT = (('left', 'right'),)


@pytest.mark.parametrize(
    ('names', 'swaps', 'expected'),
    [
        (('up', 'left', 'right'), LEFT_RIGHT, [0, 2, 1]),
        (
            ('push from left to right', 'leftover', 'push from right to left', 'copyright'),
            LEFT_RIGHT,
            [2, 1, 0, 3],
        ),
        (('swipe_Left', 'TURN-RIGHT!', 'swipe_Right', 'TURN-LEFT!'), LEFT_RIGHT, [2, 3, 0, 1]),
        (('Swiping Left', 'Swiping Right', 'left2'), (('Left', 'Right'),), [1, 0, 2]),
        (
            ('clockwise left', 'counter-clockwise right', 'clockwise', 'counter-clockwise'),
            (('left', 'right'), ('clockwise', 'counter-clockwise')),
            [1, 0, 3, 2],
        ),
        (
            ('roll up', 'turn up', 'turn left', 'turn right'),
            (('turn', 'roll'), ('turn left', 'turn right')),
            [1, 0, 3, 2],
        ),
        (('left', 'right', 'links', 'rechts'), (('links', 'rechts'),), [0, 1, 3, 2]),
        (('c++', 'c', 'left or right', 'right or left'), (('left', 'right'),), [0, 1, 3, 2]),
    ],
)
def test_classes_with_exchanged_words_change_places(names, swaps, expected):
    mirrored = mirrored_labels(names, swaps)
    assert mirrored.dtype == np.int32
    np.testing.assert_array_equal(mirrored, expected)
    np.testing.assert_array_equal(mirrored[mirrored], np.arange(len(names)))


def test_every_head_has_classes_of_its_own():
    names = {'verb': ('right', 'up', 'left'), 'noun': ('cup', 'lid')}
    mirrored = mirrored_labels(names, LEFT_RIGHT)
    assert {head: x.tolist() for head, x in mirrored.items()} == {'verb': [2, 1, 0], 'noun': [0, 1]}


def test_no_words_mean_no_map():
    assert mirrored_labels(('left', 'right'), ()) is None


def test_missing_class_is_an_error_that_lists_the_classes():
    names = ('turn left', 'turn right', 'left hand', 'on the right')
    with pytest.raises(UserError) as error:
        mirrored_labels(names, LEFT_RIGHT)
    text = str(error.value)
    assert "'left hand' (mirrored: 'right hand')" in text
    assert "'on the right' (mirrored: 'on the left')" in text
    assert 'turn left' not in text


@pytest.mark.parametrize(
    ('swaps', 'message'),
    [
        (('left', 'right'), 'must be pairs of words'),
        ((('left', 'right', 'up'),), 'must be pairs of words'),
        ((('left', 1),), 'must be pairs of words'),
        ((('left', ''),), 'must be pairs of words'),
        ((('left', 'Left'),), 'in one pair only'),
        ((('left', 'right'), ('right', 'wrong')), 'in one pair only'),
        ((('east', 'west'),), 'no class has any of these words'),
    ],
)
def test_bad_pair_is_an_error(swaps, message):
    with pytest.raises(UserError, match=message):
        mirrored_labels(('left', 'right'), swaps)


def test_mirrored_clips_take_the_other_label():
    label, is_mirrored = jnp.array([0, 1, 2, 0]), jnp.array([True, True, False, False])
    swap = np.array([2, 1, 0], np.int32)
    np.testing.assert_array_equal(swap_labels(label, is_mirrored, swap), [2, 1, 2, 0])
    heads = swap_labels(
        {'verb': label, 'noun': label}, is_mirrored, {'verb': swap, 'noun': np.arange(3)}
    )
    assert list(heads) == ['verb', 'noun']
    np.testing.assert_array_equal(heads['verb'], [2, 1, 2, 0])
    np.testing.assert_array_equal(heads['noun'], label)
    assert swap_labels(label, is_mirrored, None) is label


def test_classes_that_name_directions_are_found():
    names = {
        'verb': ('turn LEFT', 'leftover', 'upright', 'move_right'),
        'noun': ('counterclockwise', 'clockwork'),
    }
    assert find_directions(names) == ['turn LEFT', 'move_right', 'counterclockwise']
    assert find_directions(('walk', 'run')) == []
