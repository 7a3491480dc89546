"""The search for the largest batch, and the messages with which a compiler refuses a program."""

from types import SimpleNamespace

import pytest

from vivit_jax.ahead import (
    Ahead,
    Compiled,
    read_available_memory,
    read_out_of_memory,
)
from vivit_jax.parallel.memory import GIB, Memory


class _Linear(Ahead):
    """A device of 16 GiB; a program needs a fixed amount of memory, and an amount for each clip."""

    def __init__(self, fixed, clip, accumulate=1):
        self.mesh, self.capacity = (
            SimpleNamespace(shape={'data': 4, 'fsdp': 2, 'tensor': 1}),
            16 * GIB,
        )
        self._fixed, self._clip, self._accumulate = fixed * GIB, clip * GIB, accumulate

    def compile(self, step, batch_size):
        size = self._fixed + batch_size * self._clip
        refused = size if size > self.capacity else None
        memory = Memory(self._fixed, 0, 0, None if refused else size - self._fixed, refused)
        return Compiled(step, batch_size, memory, None, 0.0, {})


@pytest.mark.parametrize('first', [8, 16, 64, 256])
@pytest.mark.parametrize(('fixed', 'clip', 'largest'), [(3, 0.5, 24), (0.5, 0.1, 152), (1, 1, 8)])
def test_largest_batch_fits_and_the_next_one_does_not(first, fixed, clip, largest):
    ahead = _Linear(fixed, clip)
    found = ahead.largest_batch(ahead.compile('training', first))
    assert found.batch_size == largest
    assert found.memory.fits(ahead.capacity)
    assert not ahead.compile('training', largest + 8).memory.fits(ahead.capacity)


def test_largest_batch_of_a_training_divides_into_the_parts_that_it_accumulates():
    ahead = _Linear(0.5, 0.1, accumulate=3)
    assert ahead.largest_batch(ahead.compile('training', 48)).batch_size == 144
    assert ahead.largest_batch(ahead.compile('evaluation', 48)).batch_size == 152


class _Reserving(_Linear):
    """A device whose compiler keeps a quarter of a GiB, and may say so when it refuses."""

    says_so = True

    def compile(self, step, batch_size):
        size = self._fixed + batch_size * self._clip
        refused = size if size > 15.75 * GIB else None
        if refused and self.says_so:
            self.capacity = min(self.capacity, 15.75 * GIB)
        memory = Memory(self._fixed, 0, 0, None if refused else size - self._fixed, refused)
        return Compiled(step, batch_size, memory, None, 0.0, {})


@pytest.mark.parametrize('first', [8, 32, 3000])
def test_largest_batch_is_found_below_what_the_compiler_keeps(first):
    ahead = _Reserving(0.1, 0.004)
    found = ahead.largest_batch(ahead.compile('training', first))
    assert found.batch_size == 3912  # 15.748 GiB; 3920 need 15.78
    assert found.memory.fits(15.75 * GIB)


@pytest.mark.parametrize('first', [8, 32, 3000])
def test_largest_batch_is_nearly_found_where_the_compiler_does_not_say_what_it_keeps(first):
    ahead = _Reserving(0.1, 0.004)
    ahead.says_so = False
    found = ahead.largest_batch(ahead.compile('training', first))
    assert 0.95 * 3912 < found.batch_size <= 3912


def test_available_memory_is_read_from_the_compilers_refusal():
    message = 'the total memory required (15.91G) exceeds available HBM (15.75G).'
    assert read_available_memory(message) == 15.75 * GIB
    assert read_available_memory('RESOURCE_EXHAUSTED: Out of memory') is None


def test_no_batch_fits_where_one_clip_a_device_is_too_much():
    ahead = _Linear(20, 1)
    assert ahead.largest_batch(ahead.compile('training', 64)) is None


def test_refused_program_does_not_fit_whatever_it_says_to_need():
    assert not Memory(1, 1, 1, None, needed=15.8 * GIB).fits(16 * GIB)
    assert Memory(1, 1, 1, 10).fits(13) and not Memory(1, 1, 1, 10).fits(12)


@pytest.mark.parametrize(
    ('message', 'gib'),
    [
        (
            'RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO '
            'temporaries (20.89G) exceeds available HBM (15.75G).',
            20.89,
        ),
        ('RESOURCE_EXHAUSTED: Used 17.50G of 15.75G hbm. Exceeded by 1.75G.', 17.5),
        ('INTERNAL: 20.89G of something else', None),
    ],
)
def test_needed_memory_is_read_from_the_compilers_refusal(message, gib):
    assert read_out_of_memory(message) == (None if gib is None else gib * GIB)
