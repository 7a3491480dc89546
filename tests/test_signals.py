"""Ctrl-C ends a command whatever it is busy with."""

import signal
import subprocess
import sys

import pytest

# Each holds the main thread in a way in which no handler in Python can end it.
BUSY = {
    'swallows what is raised': """
while True:
    try:
        time.sleep(1)
    except BaseException:
        pass
""",
    'waits for a thread': """
import threading
while True:
    threading.Event().wait(1)
""",
}
SCRIPT = """
from vivit_jax.signals import end_on_ctrl_c, leave_ctrl_c_to
end_on_ctrl_c()
import multiprocessing, time
def busy():
    print('busy', flush=True)
    {busy}
def handler(*_):
    print('handled', flush=True)
{run}
"""


def start(busy, run):
    script = SCRIPT.format(busy=busy.replace('\n', '\n    '), run=run)
    process = subprocess.Popen(
        [sys.executable, '-c', script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == 'busy\n'
    return process


def end(process):
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    return process.returncode, errors


@pytest.mark.parametrize('busy', BUSY.values(), ids=BUSY)
def test_ctrl_c_ends_the_start_of_a_command(busy):
    status, errors = end(start(busy, 'busy()'))
    assert (status, errors) == (130, 'Stopped\n')


@pytest.mark.parametrize('busy', BUSY.values(), ids=BUSY)
def test_second_ctrl_c_ends_the_command_whatever_handles_the_first(busy):
    process = start(busy, 'with leave_ctrl_c_to(handler): busy()')
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == 'handled\n'
    assert process.poll() is None
    status, errors = end(process)
    assert (status, errors) == (130, 'Stopped\n')


def test_handler_counts_in_its_block_only():
    run = 'with leave_ctrl_c_to(handler): pass\nbusy()'
    status, errors = end(start(BUSY['waits for a thread'], run))
    assert (status, errors) == (130, 'Stopped\n')


def test_ctrl_c_ends_a_command_whose_output_nobody_reads():
    busy = "print(100_000 * 'full', flush=True)"
    process = start(busy, 'busy()')
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=20) == 130
    process.communicate()
