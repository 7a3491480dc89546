"""Commands whose reader goes away, as in `... | head`."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys
from vivit_jax import terminal
def main(args):
    for number in range({lines}):
        print('line', number, flush={flush})
terminal.run(main)
"""


def run(script, *arguments, keep):
    """Runs a script of which `keep` lines are read; returns them, the rest and the status."""
    process = subprocess.Popen(
        [sys.executable, '-c', script, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    lines = [process.stdout.readline() for _ in range(keep)]
    process.stdout.close()
    errors = process.stderr.read()
    return lines, errors, process.wait()


@pytest.mark.slow
@pytest.mark.parametrize('flush', [True, False])
def test_command_ends_quietly_when_its_reader_is_gone(flush):
    lines, errors, status = run(SCRIPT.format(lines=100_000, flush=flush), keep=2)
    assert lines == ['line 0\n', 'line 1\n']
    assert (errors, status) == ('', 141)


@pytest.mark.slow
def test_pipe_that_breaks_elsewhere_is_an_error():
    script = """
import os
from vivit_jax import terminal
def main(args):
    reader, writer = os.pipe()
    os.close(reader)
    os.write(writer, b'text')
terminal.run(main)
"""
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True)
    assert done.returncode == 1 and 'BrokenPipeError' in done.stderr
