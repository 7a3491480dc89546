"""Batches go on after the death of a process, and without a video whose reading does not end."""

import contextlib
import itertools
import logging
import multiprocessing
import os
import signal
import threading

import numpy as np
import pytest

from vivit_jax import processes
from vivit_jax.annotations.dataset import LabeledVideo
from vivit_jax.batches.loader import Workers, error_text, train_batches, view_batches
from vivit_jax.batches.sources import VideoFiles
from vivit_jax.batches.supervised import DecodingError, Supervised
from vivit_jax.video.crops import RandomCrop
from vivit_jax.video.preprocessing import Preprocessing

SPEC = Preprocessing(num_frames=2, short_side=16, crop_size=16)
STALL_SEC = 0.5


class Numbers:
    """0, 1, 2, …; at some of them something goes wrong, as many times as `faults` says."""

    def __init__(self, place, reads, faults, halted):
        self.place, self.reads, self.faults, self.halted = place, reads, faults, halted

    def __next__(self):
        place, self.place = self.place, self.place + 1
        fault = self.faults.get(place, [])
        if fault and fault[0] == 'death':
            fault.pop()
            raise RuntimeError('Worker process was terminated unexpectedly with exit code -9. See')
        if 'stall' in fault and place not in self.reads.given_up:
            with self.reads.reading(place):
                self.halted.wait(20)
        return place, place in self.reads.given_up

    def close(self):
        self.halted.set()


@pytest.fixture
def create(monkeypatch):
    """Makes supervised numbers with faults, in which threads of this process stand for workers."""
    monkeypatch.setattr(processes, 'has_left_threads', False)
    for name in ('_LOOK_EVERY_SEC', '_CLOSE_SEC'):
        monkeypatch.setattr(f'vivit_jax.batches.supervised.{name}', 0.05)
    halted = threading.Event()

    def make(faults, place=0):
        return Supervised(
            lambda place, reads: Numbers(place, reads, faults, halted),
            place,
            workers=(0, 1),
            stall_sec=STALL_SEC,
            name='video {}'.format,
        )

    with contextlib.ExitStack() as stack:
        yield lambda *args: stack.enter_context(contextlib.closing(make(*args)))
        halted.set()


def test_stream_goes_on_where_a_process_died(create, caplog):
    caplog.set_level(logging.WARNING, 'vivit_jax')
    numbers = create({3: ['death'], 5: ['death', 'death']}, 2)
    assert [place for place, _ in itertools.islice(numbers, 6)] == [2, 3, 4, 5, 6, 7]
    assert len(caplog.messages) == 3
    assert 'exit code -9, killed, perhaps because memory ran out' in caplog.text


def test_repeated_deaths_are_an_error_that_says_what_to_lower(create):
    numbers = create({1: 9 * ['death']})
    next(numbers)
    with pytest.raises(DecodingError, match=r'died 4 times.*lower data\.num_workers'):
        next(numbers)


def test_rare_deaths_are_not_repeated_ones(create):
    numbers = create({place: ['death'] for place in range(50, 1500, 150)})
    assert sum(1 for _ in itertools.islice(numbers, 1500)) == 1500


def test_reading_that_does_not_end_is_reported_and_given_up(create, caplog):
    caplog.set_level(logging.WARNING, 'vivit_jax')
    numbers = create({2: ['stall']})
    found = list(itertools.islice(numbers, 5))
    assert found == [(place, place == 2) for place in range(5)]
    report, given_up = caplog.messages
    assert f'process {os.getpid()} reads video 2' in report and 'data.stall_sec' in report
    assert 'video 2' in given_up
    assert processes.has_left_threads  # the command must end without them


def test_stalls_may_last_if_there_is_no_limit(create):
    numbers = create({})
    numbers._stall_sec = 0
    assert next(numbers) == (0, False)


def test_other_errors_pass(create):
    class Broken:
        def __next__(self):
            raise RuntimeError('a mistake in the code')

        def close(self):
            pass

    numbers = Supervised(lambda place, reads: Broken(), 0, workers=(0, 1), stall_sec=1, name=str)
    with pytest.raises(RuntimeError, match='a mistake in the code'):
        next(numbers)
    numbers.close()


def _videos(synthetic_folder, count):
    paths = sorted((synthetic_folder / 'train').glob('*.mp4'))[:count]
    return [LabeledVideo(str(path), label) for label, path in enumerate(paths)]


def _workers():
    return {process.pid for process in multiprocessing.active_children()}


@pytest.mark.slow
@pytest.mark.parametrize('how', [signal.SIGKILL, signal.SIGSTOP])
def test_stream_is_the_same_after_workers_are_replaced(synthetic_folder, how):
    source = VideoFiles(_videos(synthetic_folder, 8))
    crop = RandomCrop(SPEC)
    with contextlib.closing(train_batches(source, crop, batch_size=2, seed=0)) as batches:
        expected = list(itertools.islice(batches, 12))
    before = _workers()
    batches = train_batches(
        source, crop, batch_size=2, seed=0, workers=Workers(1, buffer=1, stall_sec=1.0)
    )
    with contextlib.closing(batches):
        found = list(itertools.islice(batches, 3))
        (worker,) = _workers() - before
        os.kill(worker, how)
        found += itertools.islice(batches, 9)
        assert worker not in _workers()
    for left, right in zip(found, expected, strict=True):
        np.testing.assert_array_equal(left['rgb'], right['rgb'])
        np.testing.assert_array_equal(left['video_id'], right['video_id'])


@pytest.mark.slow
def test_video_that_ends_processes_is_given_up(synthetic_folder, caplog):
    class Deadly(VideoFiles):
        def open_video(self, index, path):
            if index == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().open_video(index, path)

    caplog.set_level(logging.WARNING, 'vivit_jax')
    source = Deadly(_videos(synthetic_folder, 3))
    batches = view_batches(source, SPEC, views=(1, 1), batch_size=3, workers=Workers(1))
    with contextlib.closing(batches):
        (batch,) = batches
    errors = [error_text(error) for error in batch['error']]
    assert [bool(error) for error in errors] == [False, True, False]
    assert f'ended two processes: {source.name(1)}' in caplog.text


def test_given_up_videos_are_broken_ones_in_an_evaluation(synthetic_folder, monkeypatch):
    class Blocked(VideoFiles):
        def open_video(self, index, path):
            if index == 1:
                halted.wait(30)
            return super().open_video(index, path)

    halted = threading.Event()
    monkeypatch.setattr(processes, 'has_left_threads', False)
    monkeypatch.setattr('vivit_jax.batches.supervised._CLOSE_SEC', 0.05)
    source = Blocked(_videos(synthetic_folder, 3))
    batches = view_batches(
        source, SPEC, views=(1, 1), batch_size=3, workers=Workers(stall_sec=STALL_SEC)
    )
    with contextlib.closing(batches):
        (batch,) = batches
        halted.set()
    errors = [error_text(error) for error in batch['error']]
    assert [bool(error) for error in errors] == [False, True, False]
    assert 'was given up' in errors[1] and source.name(1) in errors[1]
