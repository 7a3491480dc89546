"""Runs commands in processes that start with the libraries already imported.

Importing JAX and the libraries takes three seconds, and tests start hundreds of processes. A server
imports the libraries once; every command runs in a fork of it.
"""

import atexit
import contextlib
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]

_FORKS = multiprocessing.get_context('forkserver')
# Modules that define flags are left out: they run as the main module.
_FORKS.set_forkserver_preload(
    ['vivit_jax.train.loop', 'vivit_jax.weights.load', 'vivit_jax.weights.huggingface', 'torch']
)


def run_python(
    command: Sequence[str],
    cwd: Path = ROOT,
    env: Mapping[str, str] | None = None,
    timeout: float = 300,
) -> subprocess.CompletedProcess:
    """Runs a command like `subprocess.run`, and captures its output as text.

    Args:
        command: `[sys.executable, '-m', MODULE, ...]` or `[sys.executable, '-c', SCRIPT, ...]`.
        cwd: folder to run in.
        env: environment variables, as they would be for `subprocess.run`. JAX's own must not
            differ from this process's, because JAX has read them already.
        timeout: seconds.
    """
    env = dict(os.environ if env is None else env)
    changed = [key for key in env if env[key] != os.environ.get(key) and key.startswith('JAX_')]
    if changed:
        raise ValueError(f'start a process with {changed} by subprocess')
    with tempfile.TemporaryDirectory() as folder:
        outputs = Path(folder) / 'stdout', Path(folder) / 'stderr'
        process = _FORKS.Process(target=_run, args=(command[1:], str(cwd), env, outputs))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(command, timeout)
        texts = (path.read_text() if path.exists() else '' for path in outputs)
        return subprocess.CompletedProcess(command, process.exitcode, *texts)


def _run(arguments: Sequence[str], cwd: str, env: dict[str, str], outputs: Sequence[Path]):
    for number, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    sys.stdout, sys.stderr = (open(number, 'w', closefd=False) for number in (1, 2))  # noqa: SIM115
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path.insert(0, cwd)
    kind, main, *rest = arguments
    sys.argv = [main if kind == '-m' else kind, *rest]
    try:
        if kind == '-m':
            runpy.run_module(main, run_name='__main__', alter_sys=True)
        else:
            exec(compile(main, '<script>', 'exec'), {'__name__': '__main__'})
    finally:
        with contextlib.suppress(Exception):
            atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
