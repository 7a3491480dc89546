"""Sections c, e, f and g: models of this package, as the trainer runs them."""

import contextlib
import math
from collections.abc import Iterator, Sequence

import jax

from accelerator_sections.plan import VIVITS, Settings
from accelerator_sections.rows import attempt, latest, measured_peak, rates, with_smaller_batches
from accelerator_sections.timing import measure_time
from accelerator_sections.training import NUM_STEPS, Program, Training, guess_gib, memory_gib
from vivit_jax.augment.policy import Augmentation

# configs/epic_kitchens100_fe_large.py
EPIC = Augmentation(
    flip=0.5,
    randaugment_layers=2,
    randaugment_magnitude=15.0,
    randaugment_geometry=False,
    mixup_alpha=0.1,
)

_MEMORISED = 4  # clips in section f
_BATCH_OF_EVERY_MODEL = 4  # in section g
_TINY_BATCH = 2  # of both: programs of section c do again


def speed(settings: Settings, rows: Sequence[dict], name: str, size: str) -> Iterator[dict]:
    """Section c: training step and forward pass with the largest batch that fits."""
    for remat in ('none', 'dots', 'block'):  # the first with which a clip fits
        training = Training(settings, name, size, remat=remat)
        if found := training.compile_largest(guess_gib(name, size)):
            break
    else:
        raise MemoryError('not even one clip fits, with remat=block')
    largest, program = found
    labels = {'name': f'{name} {size}', 'model': name, 'size': size, 'remat': remat}
    yield from measure_programs(settings, rows, training, labels, largest, program)


def measure_programs(
    settings: Settings,
    rows: Sequence[dict],
    training: Training,
    labels: dict,
    largest: int,
    compiled: Program | None = None,
) -> Iterator[dict]:
    """Rows of the training step and of the forward pass, with `largest` clips or fewer.

    Args:
        settings, rows: as for every section.
        training: the model with its training step.
        labels: labels of both rows.
        largest: the batch to begin with.
        compiled: the compiled training step for that batch, if there is one already.
    """
    gmac, peak = training.count_macs() / 1e9, measured_peak(rows)

    def step(batch: int) -> dict:
        ready = compiled is not None and batch == largest
        program = compiled if ready else training.compile_step(batch)
        times = _time_step(settings, training, program, batch)
        used = {'peak_gib': memory_gib('peak_bytes_in_use')}
        return {**times, **rates(times['ms'], batch, 3 * gmac, peak), **used}

    def forward(batch: int) -> dict:
        program = training.compile_forward(batch)
        variables, rgb = training.draw_state().eval_variables, training.draw_batch(batch)['rgb']
        times = measure_time(
            lambda: program.run(variables, rgb), jax.block_until_ready, settings.seconds
        )
        return {**times, **_facts(program), **rates(times['ms'], batch, gmac, peak)}

    labels = {**labels, 'gmac': gmac}
    row = attempt({**labels, 'program': 'training step'}, with_smaller_batches, largest, step)
    yield row
    batch = row.get('batch', largest)
    yield attempt({**labels, 'program': 'forward'}, with_smaller_batches, batch, forward)


def augmentation(settings: Settings, rows: Sequence[dict]) -> Iterator[dict]:
    """Section e: the training step with and without the recipe of EPIC-Kitchens."""
    name, size = VIVITS[0]
    known = latest(rows, section='c', model=name, program='training step', size=size)
    without = None
    for recipe, policy in (('none', Augmentation()), ('EPIC-Kitchens', EPIC)):
        training = Training(settings, name, size, policy)
        if known is None:
            found = training.compile_largest(guess_gib(name, size))
            known = {'batch': found[0] if found else 1}

        def step(batch: int, training=training) -> dict:
            times = _time_step(settings, training, training.compile_step(batch), batch)
            return {**times, **rates(times['ms'], batch)}

        labels = {'name': f'{recipe}, {name} {size}', 'recipe': recipe}
        row = attempt(labels, with_smaller_batches, known['batch'], step)
        if without and 'ms' in without and 'ms' in row:
            row['share'] = 1 - without['ms_per_clip'] / row['ms_per_clip']
        yield row
        without = row


def losses(settings: Settings, rows: Sequence[dict], dtype: str) -> Iterator[dict]:
    """Section f: losses while a few clips are learnt by heart, in bfloat16 and float32.

    Products in float32 are exact, which is not the default on accelerators.
    """
    name, size = VIVITS[0]

    def run() -> dict:
        training = Training(settings, name, size, dtype=dtype)
        batch = _TINY_BATCH if settings.tiny else max(1, _MEMORISED // training.mesh.size)
        exact = jax.default_matmul_precision('highest')
        with exact if dtype == 'float32' else contextlib.nullcontext():
            program = training.compile_step(batch)
        state, clips, found = training.draw_state(), training.draw_batch(batch), []
        for _ in range(NUM_STEPS):
            state, metrics = program.run(state, clips)
            found.append(metrics['loss'])
        found = [float(loss) for loss in found]
        other = latest(rows, section='f', dtype='bfloat16')
        result = {**_facts(program), 'losses': found}
        if other and dtype == 'float32':
            pairs = zip(other['losses'], found, strict=True)
            result['difference'] = max(abs(a - b) / b for a, b in pairs)
        return result

    yield attempt({'name': f'{name} {size} in {dtype}', 'dtype': dtype}, run)


def one_step(settings: Settings, rows: Sequence[dict], name: str) -> Iterator[dict]:
    """Section g: a training step of a model with its default size and clip."""

    def run(batch: int) -> dict:
        training = Training(settings, name)
        program = training.compile_step(batch)
        times = _time_step(settings, training, program, batch, seconds=0.0)
        gmac = training.count_macs() / 1e9
        rate = rates(times['ms'], batch, 3 * gmac, measured_peak(rows))
        return {'clip': training.spec.clip_shape, **times, **rate}

    labels = {'name': name, 'model': name}
    batch = _TINY_BATCH if settings.tiny else _BATCH_OF_EVERY_MODEL
    yield attempt(labels, with_smaller_batches, batch, run)


def _facts(program: Program) -> dict:
    return {'program_gib': program.gib, 'compile_s': program.compile_s}


def _time_step(
    settings: Settings,
    training: Training,
    program: Program,
    batch: int,
    seconds: float | None = None,
) -> dict:
    state, clips, metrics = training.draw_state(), training.draw_batch(batch), {}

    def run() -> dict:
        nonlocal state, metrics
        state, metrics = program.run(state, clips)
        return metrics

    seconds = settings.seconds if seconds is None else seconds
    times = measure_time(run, jax.block_until_ready, seconds)
    loss = float(metrics['loss'])
    if not math.isfinite(loss):
        raise FloatingPointError(f'the loss is {loss}')
    return {**times, **_facts(program), 'loss': loss}
