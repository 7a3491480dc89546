import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_jax.errors import UserError
from vivit_jax.weights.positions import resize_positions

# How bicubic tables are resized, and whether PyTorch calls that antialiased.
WAYS = [('bicubic', False), ('antialiased bicubic', True)]


def _table(grid, num_class_tokens=0, width=3):
    rng = np.random.default_rng(0)
    return rng.normal(size=(1, num_class_tokens + np.prod(grid), width)).astype(np.float32)


def _resize_axis(values, axis, size):
    """Weights of a triangle around each new center, as wide as an old or new place, the larger."""
    values = np.moveaxis(values.astype(np.float64), axis, 0)
    step = len(values) / size
    centers = (np.arange(size) + 0.5) * step
    distance = np.abs(np.arange(len(values)) + 0.5 - centers[:, None])
    weights = np.clip(1 - distance / max(step, 1), 0, None)
    weights /= weights.sum(1, keepdims=True)
    return np.moveaxis(np.tensordot(weights, values, 1), 0, axis)


@pytest.mark.parametrize('num_class_tokens', [0, 1, 2])
@pytest.mark.parametrize(
    ('old', 'new'),
    [
        ((5,), (8,)),
        ((4, 4), (6, 6)),
        ((14, 14), (7, 9)),
        ((4, 6), (9, 2)),
        ((3, 5), (3, 8)),
        ((1, 4), (3, 4)),
        ((4, 3), (1, 1)),
        ((4, 3, 5), (2, 7, 5)),
        ((8, 2, 2), (16, 3, 1)),
    ],
)
def test_every_axis_is_interpolated_between_centers(old, new, num_class_tokens):
    table = _table(old, num_class_tokens)
    expected = table[0, num_class_tokens:].reshape(*old, -1)
    for axis, size in enumerate(new):
        expected = _resize_axis(expected, axis, size)
    resized = np.asarray(resize_positions(table, old, new, num_class_tokens))
    assert resized.dtype == np.float32
    np.testing.assert_array_equal(resized[:, :num_class_tokens], table[:, :num_class_tokens])
    np.testing.assert_allclose(
        resized[0, num_class_tokens:], expected.reshape(-1, table.shape[-1]), atol=1e-6
    )


@pytest.mark.parametrize(('position_resize', 'is_antialiased'), WAYS)
@pytest.mark.parametrize(
    ('old', 'new'),
    [((37, 37), (16, 16)), ((7, 7), (12, 9)), ((5, 8), (5, 3)), ((3, 2), (1, 7)), ((14, 14),) * 2],
)
def test_bicubic_ways_are_those_of_torch(position_resize, is_antialiased, old, new):
    torch = pytest.importorskip('torch', reason='needs PyTorch')
    table = _table(old, 1)
    grid = torch.from_numpy(table[:, 1:].reshape(1, *old, -1)).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(
        grid, size=new, mode='bicubic', align_corners=False, antialias=is_antialiased
    )
    resized = resize_positions(table, old, new, 1, position_resize)
    np.testing.assert_array_equal(resized[:, :1], table[:, :1])
    np.testing.assert_allclose(
        resized[0, 1:], expected[0].flatten(1).T.numpy(), rtol=1e-5, atol=1e-5
    )


def test_doubled_axis_has_known_values():
    table = np.array([0.0, 4, 8], np.float32).reshape(1, 3, 1)
    resized = resize_positions(table, (3,), (6,))
    np.testing.assert_allclose(resized.ravel(), [0, 1, 3, 5, 7, 8], atol=1e-6)


@pytest.mark.parametrize('grid', [(14, 14), (3, 5), (2, 3, 4)])
def test_native_size_keeps_every_bit(grid):
    table = _table(grid, 1)
    table[0, :3, 0] = -0.0, 1e-42, 3e38
    for resized in (
        resize_positions(table, grid, grid, 1),
        jax.jit(resize_positions, static_argnums=(1, 2, 3))(table, grid, grid, 1),
    ):
        assert np.asarray(resized).tobytes() == table.tobytes()


@pytest.mark.parametrize('new', [(7, 3), (2, 2), (4, 7, 11)])
def test_constant_table_stays_constant(new):
    table = np.full((1, 30, 4), 0.7, np.float32)
    np.testing.assert_allclose(resize_positions(table, (5, 6), new), 0.7, atol=1e-7)


def test_added_time_axis_repeats_the_table():
    table = _table((2, 3), 1)
    tiled = resize_positions(table, (2, 3), (4, 2, 3), 1)
    assert tiled.shape == (1, 25, 3)
    np.testing.assert_array_equal(tiled[:, :1], table[:, :1])
    for time in range(4):
        np.testing.assert_array_equal(tiled[:, 1 + 6 * time : 7 + 6 * time], table[:, 1:])

    resized = resize_positions(table, (2, 3), (3, 5), 1)[:, 1:]
    both = resize_positions(table, (2, 3), (4, 3, 5), 1)[:, 1:]
    np.testing.assert_array_equal(both, np.tile(resized, (1, 4, 1)))


def test_every_old_row_counts_when_a_grid_shrinks():
    def total(table):
        return resize_positions(table, (12, 12), (3, 4)).sum()

    assert (jax.grad(total)(jnp.zeros((1, 144, 2))) > 0).all()


def test_table_of_another_grid_is_an_error():
    with pytest.raises(UserError, match=r'197 rows.*1 class tokens.*grid of 14x15.*give the grid'):
        resize_positions(np.zeros((1, 197, 2)), (14, 15), (7, 7), 1)


def test_unknown_way_is_an_error():
    with pytest.raises(UserError, match=r"position_resize='cubic' must be one of .*'bicubic'"):
        resize_positions(np.zeros((1, 4, 2)), (2, 2), (3, 3), 0, 'cubic')
