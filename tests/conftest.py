"""Paths and data that several tests use."""

import functools
import gc
import importlib.metadata
import os
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from vivit_jax.video.synthetic import SyntheticVideos, create_synthetic_videos

# Most of the time goes into compiling thousands of tiny programs, which take longer to compile than
# to run. They are optimized little, and kept for other processes and for the next run; and JAX 0.10
# is told to take its faster generator of code.
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
os.environ.setdefault(
    'JAX_COMPILATION_CACHE_DIR', str(Path(__file__).parents[1] / '.pytest_cache' / 'jax')
)
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
# Later versions and libtpu refuse to know the first flag. A tiny program in one part compiles in
# two thirds of the time.
_FLAGS = '--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1'
_KNOWS_FLAGS = importlib.metadata.version('jax').startswith('0.10.') and not find_spec('libtpu')
if _KNOWS_FLAGS and _FLAGS not in os.environ.get('XLA_FLAGS', ''):
    os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {_FLAGS}'.strip()

TINY_VIDEOS = SyntheticVideos(
    num_train=24, num_val=8, num_test=8, num_frames=10, height=32, width=40
)


def pytest_collection_finish():
    """What is imported by now stays, and need not be searched for garbage again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


@pytest.fixture(scope='session')
def shared() -> Path:
    """The folder of reference tensors and real videos; skips the test if there is none."""
    default = Path(__file__).parents[2] / 'shared'
    folder = Path(os.environ.get('VIVIT_JAX_SHARED', default))
    if not folder.is_dir():
        pytest.skip(f'no reference data at {folder.absolute()} (VIVIT_JAX_SHARED)')
    return folder


@pytest.fixture(scope='session')
def cache_dir(tmp_path_factory) -> Path:
    """A cache folder for embedded videos."""
    return tmp_path_factory.mktemp('cache')


@pytest.fixture(scope='session')
def synthetic_folder(cache_dir) -> Path:
    """A few tiny embedded videos with their CSV files."""
    return create_synthetic_videos(TINY_VIDEOS, str(cache_dir))


@pytest.fixture(scope='session')
def variable_shapes() -> Callable:
    """The shapes of a module's variables, traced once for each module and shape of its inputs."""
    import jax

    def trace(module, *inputs):
        return jax.eval_shape(module.init, jax.random.key(0), *inputs)

    cached = functools.cache(trace)

    def shapes(module, *inputs):
        inputs = [jax.ShapeDtypeStruct(jax.numpy.shape(x), x.dtype) for x in inputs]
        try:
            return cached(module, *inputs)
        except TypeError:  # a module with a list or a dict has no hash
            return trace(module, *inputs)

    return shapes


@pytest.fixture(scope='session')
def random_params(variable_shapes) -> Callable:
    """Makes random parameters, none of which is zero; some are zero at initialization."""
    import jax
    import numpy as np

    def make(module, *inputs, scale=0.4):
        shapes = variable_shapes(module, *inputs)['params']
        rng = np.random.default_rng(0)
        return jax.tree.map(lambda x: rng.normal(0, scale, x.shape).astype(np.float32), shapes)

    return make


@pytest.fixture
def exact_matmuls() -> Iterator[None]:
    """Accelerators multiply float32 coarsely by default."""
    import jax

    with jax.default_matmul_precision('highest'):
        yield


@pytest.fixture
def any_gpu() -> Iterator[None]:
    """Lets programs for GPUs be traced as if there were cuDNN and a modern GPU."""
    from vivit_jax.parallel.targets import assume_cudnn

    with assume_cudnn():
        yield
