"""The same training with several seeds, one after the other, and a table of their results."""

import json
import logging
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
from ml_collections import ConfigDict

from vivit_jax import terminal
from vivit_jax.atomic_files import replace_text
from vivit_jax.errors import UserError, writing

_log = logging.getLogger(__name__)


def parse_seeds(words: Sequence[str]) -> tuple[int, ...]:
    """The seeds of `--seeds=0,1,2`.

    Raises:
        UserError: the words are not whole numbers, or a number is there twice.
    """
    try:
        seeds = tuple(map(int, words))
    except ValueError:
        seeds = ()
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UserError(
            f'--seeds={",".join(words)} must be different whole numbers from 0, such as 0,1,2'
        )
    return seeds


def for_each_seed(
    seeds: Sequence[int],
    config: ConfigDict,
    workdir: Path,
    run: Callable[[ConfigDict, Path], tuple[int, Mapping[str, float]]],
    mode: str = 'train',
) -> int:
    """Runs a config with each seed in `workdir/seed_<seed>`, and compares the results.

    Prints a table of the metrics that all seeds have, with their mean and their standard deviation,
    and writes it to `seeds_<mode>.md` and `.json`. The files are brought up to date after every
    seed.

    Args:
        seeds: in the order in which they run.
        config: of the runs, but for `seed`.
        workdir: the folder of the run folders.
        run: (config, run folder) -> exit status and metrics. The first status that is not 0 ends
            the loop.
        mode: what `run` does, for the names of the files.

    Returns:
        The last exit status.

    Raises:
        UserError: of a run, or the table cannot be written.
    """
    found = {}
    for seed in seeds:
        folder = workdir / f'seed_{seed}'
        terminal.end_log_file()
        _log.info('Seed %d of %s, in %s', seed, ', '.join(map(str, seeds)), folder)
        config = config.copy_and_resolve_references()
        config.seed = seed
        status, found[seed] = run(config, folder)
        if status:
            return status
        if jax.process_index() == 0:
            _write(workdir / f'seeds_{mode}', found)
    if jax.process_index() == 0:
        print(describe_seeds(found))
    return 0


def _write(path: Path, found: Mapping[int, Mapping[str, float]]):
    metrics = {}
    for name, values in _shared(found).items():
        mean, deviation = _mean_and_deviation(values)
        metrics[name] = {'values': values, 'mean': mean, 'standard_deviation': deviation}
    with writing(path):
        text = json.dumps({'seeds': list(found), 'metrics': metrics}, indent=2)
        replace_text(path.with_suffix('.json'), f'{text}\n')
        replace_text(path.with_suffix('.md'), f'{describe_seeds(found)}\n')


def describe_seeds(found: Mapping[int, Mapping[str, float]]) -> str:
    """A table in Markdown: a row for each metric that all seeds have; accuracies in percent."""
    rows = [['metric', *(f'seed {seed}' for seed in found), 'mean', 'standard deviation']]
    rows.append(['---', *['---:'] * (len(found) + 2)])
    for name, values in _shared(found).items():
        numbers = [*values, *_mean_and_deviation(values)]
        rows.append([name, *(_in_words(name, number) for number in numbers)])
    return '\n'.join(f'| {" | ".join(row)} |' for row in rows)


def _shared(found: Mapping[int, Mapping[str, float]]) -> dict[str, list[float]]:
    """For each metric that all seeds have, its values."""
    first, *others = found.values()
    names = [name for name in first if all(name in metrics for metrics in others)]
    return {name: [metrics[name] for metrics in found.values()] for name in names}


def _mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """The mean, and the standard deviation with n - 1 degrees of freedom; None of one value."""
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return statistics.fmean(values), deviation


def _in_words(metric: str, value: float | None) -> str:
    if value is None:
        return ''
    return f'{value:.4f}' if 'loss' in metric else f'{100 * value:.2f} %'
