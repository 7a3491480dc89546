"""Commands whose reader goes away, as in `... | head`."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import sys
from vivit_jax import terminal
def main(args):
    print('first line', flush=True)
    sys.stdin.readline()
    for number in range({lines}):
        print('line', number, flush={flush})
terminal.run(main)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ('lines', 'flush'), [(1, True), (1, False), (100_000, False)], ids=['print', 'end', 'buffer']
)
def test_command_ends_quietly_when_its_reader_is_gone(lines, flush):
    process = subprocess.Popen(
        [sys.executable, '-c', SCRIPT.format(lines=lines, flush=flush)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, 'PYTHONUNBUFFERED': ''},
    )
    assert process.stdout.readline() == 'first line\n'
    process.stdout.close()
    process.stdin.write('\n')
    process.stdin.close()
    errors = process.stderr.read()
    assert (errors, process.wait()) == ('', 141)


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
