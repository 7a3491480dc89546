import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_jax.layers.grid import sincos_positions
from vivit_jax.layers.position import ClipPositionEmbedding, PositionEmbedding


@pytest.mark.parametrize('grid', [(7,), (3, 5), (1, 4), (2, 3, 4), (2, 1, 4)])
def test_sincos_equals_formula_per_place(grid):
    width = 26
    table = sincos_positions(grid, width).reshape(*grid, width)
    long_axes = [axis for axis, size in enumerate(grid) if size > 1]
    pairs = width // (2 * len(long_axes))
    for place in np.ndindex(*grid):
        expected = []
        for axis in long_axes:
            angles = [place[axis] / 10000 ** (i / pairs) for i in range(pairs)]
            expected += [math.sin(angle) for angle in angles]
            expected += [math.cos(angle) for angle in angles]
        expected += [0] * (width - len(expected))
        np.testing.assert_allclose(table[place], expected, atol=1e-6)


@pytest.mark.parametrize('grid', [(14, 14), (16,), (8, 3, 5), (1, 1)])
def test_sincos_is_unique_per_place(grid):
    table = sincos_positions(grid, 48)
    assert table.shape == (math.prod(grid), 48)
    assert table.dtype == np.float32
    distances = np.linalg.norm(table[:, None] - table, axis=-1)
    assert (distances + 10 * np.eye(len(table))).min() > 0.1


@pytest.mark.parametrize('num_class_tokens', [0, 1])
def test_sincos_embedding_leaves_class_tokens(num_class_tokens):
    tokens = np.random.default_rng(0).normal(size=(2, 3, num_class_tokens + 6, 8))
    tokens = tokens.astype(np.float32)
    output = PositionEmbedding('sincos3d', (2, 3)).apply({}, tokens)
    np.testing.assert_array_equal(
        output[..., :num_class_tokens, :], tokens[..., :num_class_tokens, :]
    )
    added = np.asarray(output - tokens)[..., num_class_tokens:, :]
    expected = np.broadcast_to(sincos_positions((2, 3), 8), added.shape)
    np.testing.assert_allclose(added, expected, atol=1e-6)


def test_no_positions_change_nothing():
    tokens = np.random.default_rng(0).normal(size=(2, 6, 8)).astype(np.float32)
    module = PositionEmbedding('none', (2, 3))
    assert not module.init(jax.random.key(0), tokens)
    np.testing.assert_array_equal(module.apply({}, tokens), tokens)


def test_learned_positions_are_one_table_for_all_sequences():
    module = PositionEmbedding('learned', (10, 10))
    tokens = np.random.default_rng(0).normal(size=(2, 3, 101, 32)).astype(np.float32)
    params = module.init(jax.random.key(0), tokens)['params']
    assert jax.tree.map(jnp.shape, params) == {'pos_embedding': (1, 101, 32)}
    table = np.asarray(params['pos_embedding'])
    np.testing.assert_allclose(table.std(), 0.02, rtol=0.05)
    output = module.apply({'params': params}, tokens)
    np.testing.assert_allclose(output, tokens + table[0], atol=1e-6)


@pytest.mark.parametrize('kind', ['learned', 'sincos3d', 'none'])
def test_positions_keep_bfloat16(kind):
    tokens = jnp.ones((1, 7, 8), jnp.bfloat16)
    module = PositionEmbedding(kind, (2, 3))
    variables = module.init(jax.random.key(0), tokens)
    assert module.apply(variables, tokens).dtype == jnp.bfloat16
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(variables))


def test_rows_of_a_clips_table_belong_to_its_frames_in_order():
    tokens = np.zeros((2, 3, 1 + 4, 6), np.float32)
    module = ClipPositionEmbedding()
    variables = module.init(jax.random.key(0), tokens)
    table = np.asarray(variables['params']['pos_embedding'])
    assert table.shape == (1, 1 + 3 * 4, 6)
    assert 0.01 < table.std() < 0.03
    output = module.apply(variables, tokens)
    for frame in range(3):
        rows = [0, *range(1 + 4 * frame, 5 + 4 * frame)]
        np.testing.assert_array_equal(output[:, frame], np.tile(table[:, rows], (2, 1, 1)))
