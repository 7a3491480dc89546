"""Pooling of tokens by their changes over time."""

import jax
import numpy as np
import pytest

from vivit_jax.layers.pooling import pool_changes

torch = pytest.importorskip(
    'torch', reason='adaptive_avg_pool2d of PyTorch makes the expected cells'
)


@pytest.mark.parametrize('space', [(12, 12), (8, 11), (6, 16), (3, 7), (1, 1)])
@pytest.mark.parametrize(
    ('num_frames', 'halves'), [(5, ((0, 2), (2, 4))), (6, ((0, 3), (2, 5))), (2, ((0, 1), (0, 1)))]
)
def test_changes_are_those_of_the_means_of_cells(space, num_frames, halves):
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(2, num_frames, *space, 3)).astype(np.float32)
    found = pool_changes(tokens.reshape(2, num_frames, -1, 3), space)
    cells = tuple(min(6, length) for length in space)
    frames = torch.from_numpy(tokens).permute(0, 1, 4, 2, 3).reshape(-1, 3, *space)
    pooled = torch.nn.functional.adaptive_avg_pool2d(frames, cells)
    pooled = pooled.reshape(2, num_frames, 3, -1).transpose(2, 3).numpy()
    squares = np.diff(pooled, axis=1) ** 2
    parts = [squares[:, a:b].mean(axis=1) for a, b in ((0, num_frames - 1), *halves)]
    expected = np.sqrt(np.concatenate(parts, axis=1)).reshape(2, -1)
    np.testing.assert_allclose(found**2, expected**2 + 1e-6, rtol=1e-4)


def test_still_videos_and_single_frames_have_finite_gradients():
    for frames in (1, 4):
        tokens = np.ones((1, frames, 4, 3), np.float32)
        value, grad = jax.value_and_grad(lambda x: pool_changes(x, (2, 2)).sum())(tokens)
        np.testing.assert_allclose(value, 36 * 1e-3, rtol=1e-5)
        np.testing.assert_array_equal(grad, 0)
