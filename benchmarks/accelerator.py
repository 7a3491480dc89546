"""Measures this package on a GPU or TPU, in about ten minutes.

    python benchmarks/accelerator.py --minutes=10
    python benchmarks/accelerator.py --sections=a,c --output=runs/h100
    python benchmarks/accelerator.py --tiny

Sections: a, peak of a matrix product and of a copy; b, attention in every implementation; c,
forward pass and training step of ViViT with the largest batch that fits; d, the same work in
PyTorch (Hugging Face's ViViT and `vivit_jax.torch`), and in Scenic from `--original`; e, the share
of augmentation; f, losses in bfloat16 and float32; g, a training step of every model.

Every row is appended to OUTPUT.jsonl as soon as it is measured, and all tables are in OUTPUT.md, so
that nothing is lost when the command is stopped. The most important rows come first; rows that no
longer fit into `--minutes` are skipped. A measurement that fails becomes a row with the reason. A
second run with the same OUTPUT on the same kind of device adds to the tables, and reuses the peak
of section a and the batches of section c.

Needs jax, flax, optax, ml-collections, numpy, einops and chex, for section d also torch and
transformers; the package itself need not be installed. `--tiny` runs everything on a CPU with tiny
models, to see that nothing fails.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # measures the checkout that it is in

from accelerator_sections.plan import Settings, Task, plan
from accelerator_sections.tables import TITLES, machine_text, row_text, section_text
from accelerator_sections.worker import Worker

_MACHINE = Task('machine', 'machine', 'accelerator_sections.device:describe', (), 15, 'device')
_PATIENCE = 4  # times the expected seconds, after which a task is stopped
_LEAST_PATIENCE = 90.0  # seconds


def main():
    """Measures, prints a table after each section, and writes all tables to files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--sections', default=','.join(TITLES), help='such as a,c')
    parser.add_argument('--minutes', type=float, default=10)
    parser.add_argument(
        '--output', type=Path, default=Path('runs/accelerator'), help='files, without suffix'
    )
    parser.add_argument('--original', default='', help="a checkout of Scenic's repository")
    parser.add_argument('--cache', help='folder that keeps compiled programs for the next run')
    parser.add_argument('--tiny', action='store_true', help='tiny models on a CPU')
    args = parser.parse_args()
    sections = args.sections.split(',')
    if unknown := set(sections) - set(TITLES):
        parser.error(f'--sections={args.sections}: there is no {min(unknown)}, only a to g')
    if args.original and not (Path(args.original) / 'scenic/projects/vivit').is_dir():
        parser.error(f'--original={args.original} has no folder scenic/projects/vivit')
    if args.minutes <= 0:
        parser.error(f'--minutes={args.minutes:g} must be more than 0')
    try:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        for suffix in ('jsonl', 'md'):
            Path(f'{args.output}.{suffix}').open('a').close()
    except OSError as error:
        parser.error(f'--output={args.output}: cannot write {error.filename}: {error.strerror}')

    if args.tiny:
        os.environ.update(JAX_PLATFORMS='cpu', JAX_DISABLE_MOST_OPTIMIZATIONS='1')
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: sys.exit(128 + number))  # ends the worker too
    settings = Settings(args.tiny, args.original and str(Path(args.original).absolute()))
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        contextlib.closing(Run(settings, args.output, 60 * args.minutes)) as run,
    ):
        os.environ['JAX_COMPILATION_CACHE_DIR'] = args.cache or folder
        machine = run.describe_machine()
        print(machine_text(machine), flush=True)
        tasks = plan(sections, machine['models'], settings)
        for task, following in zip(tasks, [*tasks[1:], None], strict=True):
            run.measure(task)
            if following is None or following.section != task.section:
                print(f'\n{section_text(task.section, run.rows)}\n', flush=True)
        print(
            f'Took {run.elapsed():.0f} s; rows are in {run.rows_file}, tables in {run.tables_file}'
        )


class Run:
    """One run of the command.

    Args:
        settings: settings of all tasks.
        output: path of the output files without their suffix.
        seconds: the time that the run may take.

    Attributes:
        rows: the measured rows of earlier runs on the same kind of device, and all rows of this
            run.
    """

    def __init__(self, settings: Settings, output: Path, seconds: float):
        self.rows_file, self.tables_file = Path(f'{output}.jsonl'), Path(f'{output}.md')
        self.rows: list[dict] = []
        self._settings, self._seconds, self._start = settings, seconds, time.monotonic()
        self._worker, self._process = None, ''
        self._labels, self._machine = {}, {}
        self._expected = self._spent = 30.0  # seconds of tasks: at first all goes as expected

    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def close(self):
        """Ends the worker process of the last task."""
        if self._worker:
            self._worker.close()

    def describe_machine(self) -> dict:
        """The row of the machine; ends the program if there is no accelerator to measure."""
        [machine] = self._run(_MACHINE, self._seconds)
        if machine['status'] != 'measured':
            sys.exit(f'Error: nothing can be measured: {machine["reason"]}')
        if machine['platform'] == 'cpu' and not self._settings.tiny:
            sys.exit(
                'Error: JAX finds no GPU or TPU: install jax[cuda12], jax[cuda13] or jax[tpu], or '
                'give --tiny'
            )
        self._machine = machine
        self._labels = {'device_kind': machine['device_kind'], 'tiny': self._settings.tiny}
        self.rows = [
            row
            for row in _read(self.rows_file)
            if row['status'] == 'measured' and self._labels.items() <= row.items()
        ]
        self._write(machine)
        return machine

    def measure(self, task: Task):
        """Measures a task, if there is time, and writes its rows and all tables."""
        pace = self._spent / self._expected
        expected, left = pace * task.seconds, self._seconds - self.elapsed()
        if expected > left:
            reason = f'takes about {expected:.0f} s, and {max(0, left):.0f} s are left'
            rows = iter([{'name': task.name, 'status': 'skipped', 'reason': reason}])
        else:
            print(f'[{self.elapsed():4.0f} s] {task.section}: {task.name}', flush=True)
            patience = max(_LEAST_PATIENCE, _PATIENCE * expected, self._seconds / 10)
            rows = self._run(task, min(left, patience))
            self._expected += task.seconds
        start = time.monotonic()
        for row in rows:
            row = {'section': task.section, **row}
            self._write(row)
            self.rows.append(row)
            print(f'         {row_text(row)}', flush=True)
        self._spent += time.monotonic() - start
        texts = [machine_text(self._machine)]
        if self._settings.tiny:
            texts.append('A tiny run: all sizes are reduced, and no figure tells about a device.')
        texts += [section_text(section, self.rows) for section in TITLES]
        self.tables_file.write_text('\n\n'.join(filter(None, texts)) + '\n')

    def _run(self, task: Task, limit: float) -> Iterator[dict]:
        """Rows of a task, run by the last task's worker if it has the right process."""
        if self._worker and not (self._worker.is_sound and self._process == task.process):
            self._worker.close()
            self._worker = None
        if not self._worker:
            self._worker = Worker(task.library, self._settings, self.rows)
            self._process = task.process
        return self._worker.run(task, limit)

    def _write(self, row: dict):
        with self.rows_file.open('a') as file:
            date = self._machine['date']
            file.write(json.dumps({'date': date, **self._labels, **row}) + '\n')


def _read(file: Path) -> list[dict]:
    """Rows of earlier runs; one may have been cut off within a line."""
    rows = []
    for line in file.read_text().splitlines() if file.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


if __name__ == '__main__':
    main()
