"""What a training says about itself at its start and at its end."""

import dataclasses
import math
import operator
from pathlib import Path

import jax

from vivit_jax.heads import map_heads
from vivit_jax.train.experiment import Experiment
from vivit_jax.train.freezing import find_frozen
from vivit_jax.weights.orbax import BEST, LAST


def describe_run(experiment: Experiment, workdir: Path) -> list[str]:
    """Lines about the model, the data and the length of a training."""
    programs, config = experiment.programs, experiment.config
    params = programs.abstract_state.params
    sizes = jax.tree.map(lambda x: math.prod(x.shape) / 1e6, params)
    is_frozen = find_frozen(params, config.train.freeze)
    frozen = sum(jax.tree.leaves(jax.tree.map(operator.mul, sizes, is_frozen)))
    of_which = f', of which {frozen:.2f} M frozen' if frozen else ''
    splits = (f'{len(rows)} {name}' for name, rows in experiment.dataset.splits.items())
    return [
        f'Model {config.model.name}, {sum(jax.tree.leaves(sizes)):.2f} M parameters{of_which}, '
        f'{programs.model.spec.dtype}; {_fields(programs.spec)}',
        f'Data: {", ".join(splits)}; {map_heads(len, experiment.dataset.label_names)} classes; '
        f'{_fields(programs.policy)}',
        f'{experiment.num_steps} steps of {config.train.batch_size} clips on '
        f'{jax.device_count()} {jax.default_backend()} device(s), {jax.process_count()} '
        f'process(es); run folder {workdir}',
    ]


def _fields(settings: object) -> str:
    return ', '.join(f'{name}={value}' for name, value in dataclasses.asdict(settings).items())


def describe_checkpoints(
    workdir: Path, named: dict[str, tuple[int, float | None]], title: str, tested: str
) -> str:
    """Which checkpoint is the best and which the last, and what each scored, in a line.

    Args:
        workdir: the run folder.
        named: see `Checkpoints.best_and_last`.
        title: the name of the metric of the validations.
        tested: what the last one scored in the test, in words; '': it was not tested.
    """

    def scores(name: str) -> str:
        step, accuracy = named[name]
        validated = '' if accuracy is None else f'val {100 * accuracy:.2f} % of 1x1 views'
        found = ', '.join(filter(None, [validated, tested if name == LAST else '']))
        return f'step {step}' + (f' ({title}: {found})' if found else '')

    if named[BEST][0] == named[LAST][0]:
        found = f'{workdir / BEST} and {workdir / LAST} are {scores(LAST)}'
    else:
        found = f'{workdir / BEST} is {scores(BEST)}, {workdir / LAST} is {scores(LAST)}'
    return f'{found}. python -m vivit_jax.predict --checkpoint={workdir} VIDEO takes the best'
