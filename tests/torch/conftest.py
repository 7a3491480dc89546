"""What the tests of the PyTorch models share."""

import numpy as np
import pytest


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    """Tiny layers take longer when threads wait for each other."""
    torch = pytest.importorskip('torch', reason='needs PyTorch: the extra torch')
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope='session')
def relative_error():
    """Computes the norm of a difference, relative to the norm of the expected values."""

    def compute(value, expected):
        value, expected = np.asarray(value), np.asarray(expected)
        assert value.shape == expected.shape
        return np.linalg.norm(value - expected) / np.linalg.norm(expected)

    return compute
