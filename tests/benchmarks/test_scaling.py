"""The benchmark of scaling runs on simulated devices and in real processes."""

import subprocess
import sys
from pathlib import Path

import pytest
from python_process import run_python

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_two_devices_and_two_processes_send_the_least():
    command = [sys.executable, 'benchmarks/scaling.py', '--steps=1', '--splits=data']
    done = subprocess.run(
        [*command, '--devices=2', '--processes=2'], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    rows = [line.strip('| ').split(' | ') for line in done.stdout.splitlines() if '|' in line]
    devices, processes = [row for row in rows if row[0].isdigit()]
    # Number, split, FLOPs over the first row, MB sent, over the least, clips/s over the first row.
    assert devices[:5] == processes[:5]
    assert devices[4] == '1.00'


def test_target_without_published_figures_is_an_error():
    script = """
import runpy, sys
sys.argv = ['scaling.py', '--targets=cpu:2']
runpy.run_path('benchmarks/scaling.py', run_name='__main__')
"""
    done = run_python([sys.executable, '-c', script])
    assert done.returncode == 2 and 'cpu:2 has no published figures' in done.stderr
