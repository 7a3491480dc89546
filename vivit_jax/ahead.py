"""Compiles the steps of a config for devices that this machine does not have, and reports on them.

    python -m vivit_jax.summary --config=configs/kinetics400_fe.py --target=h100:8

Prints what the compiler plans: memory of a device, collectives, kernels, FLOPs, bytes.
"""

import contextlib
import dataclasses
import functools
import math
import os
import re
import time
from collections.abc import Iterator

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from vivit_jax.config import load
from vivit_jax.costs import count_macs, model_call, plain_form
from vivit_jax.heads import map_heads
from vivit_jax.layers.attention_kernels import describe_choices, record_choices
from vivit_jax.models.variables import abstract_clip
from vivit_jax.parallel.compiled import CompiledText
from vivit_jax.parallel.memory import GIB, Memory, describe_size, plan_memory
from vivit_jax.parallel.mesh import batch_parts, check_batch_size, create_mesh
from vivit_jax.parallel.targets import (
    assume_cudnn,
    find_devices,
    parse_target,
    start_cpu_devices,
)
from vivit_jax.train.programs import Programs

# The products of a step, in units of a forward pass: training adds two gradients for each product,
# one for each factor.
_FORWARD_PASSES = {'training': 3, 'evaluation': 1}


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A program for a target.

    Attributes:
        step: `'training'` or `'evaluation'`.
        batch_size: clips of all devices together; in an evaluation, temporal views.
        memory: memory of one device.
        text: the text of the compiled program; None if it was not compiled.
        seconds: the time to lower and compile the program.
        attention: the implementation of attention by number of tokens.
    """

    step: str
    batch_size: int
    memory: Memory
    text: CompiledText | None
    seconds: float
    attention: dict[int, str]


class Ahead:
    """The steps of a config on the mesh of a target; needs no data and no chip.

    The constructor makes JAX use the CPU only, so it must run before anything else starts JAX.

    Args:
        config: see `vivit_jax.config.schema`.
        target: see `parse_target`.
        quick: see `Target.compiler_options`.

    Raises:
        UserError: there is no such target, or the config does not fit it.
    """

    def __init__(self, config: ConfigDict, target: str, quick: bool = False):
        self.target = parse_target(target)
        self._options = self.target.compiler_options(quick)
        chip = self.target.chip
        is_cpu = chip.platform == 'cpu'
        if is_cpu or not self.target.can_compile:
            start_cpu_devices(self.target.num_chips)
            devices = jax.devices()
        else:
            start_cpu_devices(1)
            devices = find_devices(self.target)
        self.kind = devices[0].device_kind if is_cpu or self.target.can_compile else target
        self.per_chip = len(devices) // self.target.num_chips
        memory = chip.memory_gib * GIB
        if is_cpu:
            memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
            self.per_chip = len(devices)
        self.capacity = memory / self.per_chip
        self.mesh = create_mesh(load.mesh_sizes(config), devices)
        load.check_ranges(config)
        self._accumulate = config.train.accumulate
        check_batch_size(config.train.batch_size, self.mesh, 'train.batch_size', self._accumulate)
        check_batch_size(config.eval.batch_size, self.mesh, 'eval.batch_size')
        self.num_classes = load.guess_classes(config)
        schedule = optax.constant_schedule(config.train.learning_rate)
        mirrored = None
        if config.augment.flip and config.augment.flip_swaps:  # only data tell which classes swap
            mirrored = map_heads(lambda n: np.arange(n, dtype=np.int32), self.num_classes)
        self.programs = Programs(
            config, self.mesh, self.num_classes, schedule, mirrored, platform=chip.platform
        )

    def compile(self, step: str, batch_size: int) -> Compiled:
        """Lowers a step for a batch, and compiles it if the compiler is installed."""
        programs, platform = self.programs, self.target.chip.platform
        state, variables = programs.abstract_state, programs.abstract_state.eval_variables
        if step == 'training':
            batch = programs.abstract_batch(batch_size)
            function, args = programs.train_step(), (state, batch)
        else:
            batch = programs.abstract_views(batch_size)
            function, args = programs.eval_step(), (variables, batch)
        began, compiled, needed = time.monotonic(), None, None
        with self._tracing(), record_choices(platform) as attention:
            lowered = function.trace(*args).lower(lowering_platforms=(platform,))
            if self.target.can_compile:
                try:
                    compiled = lowered.compile(compiler_options=self._options)
                except jax.errors.JaxRuntimeError as error:
                    needed = read_out_of_memory(str(error))
                    if needed is None:
                        raise
                    # A compiler keeps some of the memory for itself, and says how much is left.
                    available = read_available_memory(str(error))
                    self.capacity = min(self.capacity, available or self.capacity)
        if step == 'training':
            memory = programs.plan_training(compiled, batch, needed)
        else:
            memory = plan_memory(compiled, variables, batch, needed=needed)
        text = CompiledText(compiled.as_text()) if compiled is not None else None
        return Compiled(step, batch_size, memory, text, time.monotonic() - began, dict(attention))

    def smallest_batch(self, step: str) -> int:
        """The smallest batch of a step, of which all others are multiples."""
        return batch_parts(self.mesh) * (self._accumulate if step == 'training' else 1)

    def largest_batch(self, first: Compiled) -> Compiled | None:
        """The program with the largest batch that fits; None if not even a clip per device fits.

        The search assumes that memory grows linearly with the batch: it draws a line through
        `first` and the batch tried last, and tries the batch at which the line meets the capacity,
        if that lies between the largest batch that fits and the smallest that does not. The result
        certainly fits, and is close to the largest batch.
        """
        smallest, best = self.smallest_batch(first.step), None
        half = max(smallest, first.batch_size // 2 // smallest * smallest)
        found = self.compile(first.step, half if half < first.batch_size else 2 * half)
        tried = {first.batch_size: first, found.batch_size: found}
        for _ in range(3):
            growth = found.memory.total - first.memory.total
            slope = max(1, growth / (found.batch_size - first.batch_size))  # bytes a clip
            spare = (self.capacity - found.memory.total) / slope
            batch_size = max(smallest, int(found.batch_size + spare) // smallest * smallest)
            fits = {n: x.memory.fits(self.capacity) for n, x in tried.items()}
            most = max((n for n in tried if fits[n]), default=0)
            least = min((n for n in tried if not fits[n]), default=math.inf)
            if batch_size >= least:  # the compiler keeps more than it says: try a little less
                batch_size = max(most + smallest, int(least * 0.97)) // smallest * smallest
            if batch_size in tried or batch_size == 0:
                break
            found = tried[batch_size] = self.compile(first.step, batch_size)
        for candidate in tried.values():
            if candidate.memory.fits(self.capacity):
                best = max(best or candidate, candidate, key=lambda x: x.batch_size)
        return best

    def flops(self, compiled: Compiled) -> float:
        """FLOPs of the model in a step, on one device, without repeats by rematerialisation."""
        clips = compiled.batch_size
        if compiled.step == 'evaluation':
            clips *= next(iter(self.programs.abstract_views(1).values())).shape[1]
        return 2 * self._forward_macs * _FORWARD_PASSES[compiled.step] * clips / self.mesh.size

    @functools.cached_property
    def _forward_macs(self) -> int:
        """Multiply-adds of a clip in the forward pass."""
        model = plain_form(self.programs.model)
        call = model_call(model, abstract_clip(model.spec, self.programs.spec.clip_shape))
        return count_macs(call.function, *call.args)[0]

    @contextlib.contextmanager
    def _tracing(self) -> Iterator[None]:
        on_gpu = self.target.chip.platform == 'cuda'
        with jax.set_mesh(self.mesh), assume_cudnn() if on_gpu else contextlib.nullcontext():
            yield


def print_report(config: ConfigDict, target: str, *, largest: bool, quick: bool):
    """Prints the memory and the work of a config's steps on a target.

    Args:
        config: see `vivit_jax.config.schema`.
        target: see `parse_target`.
        largest: whether to search for the largest batches that fit.
        quick: see `Target.compiler_options`.
    """
    ahead = Ahead(config, target, quick)
    shape = ' x '.join(f'{axis} {size}' for axis, size in ahead.mesh.shape.items())
    print(
        f'{config.model.name} on {ahead.target.name}: {ahead.mesh.size} devices ({ahead.kind}), '
        f'mesh {shape}; classes {ahead.num_classes}'
    )
    for step, section in (('training', 'train'), ('evaluation', 'eval')):
        compiled = ahead.compile(step, config[section].batch_size)
        _print_compiled(ahead, compiled, f'{section}.batch_size')
        if largest and ahead.target.can_compile:
            _print_largest(ahead, step, ahead.largest_batch(compiled), f'{section}.batch_size')
    if not ahead.target.can_compile:
        print(
            f'\nLowered for {ahead.target.chip.platform}, but not compiled: the compiler is not '
            f"installed. pip install 'vivit_jax[{ahead.target.extra}]' brings it; it needs no chip."
        )


def _print_compiled(ahead: Ahead, compiled: Compiled, key: str):
    memory, chip = compiled.memory, ahead.target.chip
    each = compiled.batch_size // batch_parts(ahead.mesh)
    print(f'\n{compiled.step} step, {key}={compiled.batch_size}, {each} a device', end='')
    print(f', compiled in {compiled.seconds:.0f} s' if compiled.text else '')
    rows = {
        'parameters': memory.parameters,
        'optimizer state': memory.optimizer,
        'batch': memory.batch,
        'activations, temporaries': memory.temporaries,
    }
    for name, size in rows.items():
        if size is not None:
            print(f'  {name:26} {describe_size(size)}')
    if memory.on_host:
        print(f'  {"optimizer, on the host":26} {describe_size(memory.on_host)}')
    total = f'  {"total of a device":26} {describe_size(memory.total)} of '
    total += f'{ahead.capacity / GIB:.2f} GiB'
    if memory.temporaries is None and memory.needed is None:
        print(f'{total}, without activations and temporaries')
    elif memory.fits(ahead.capacity):
        print(f'{total}: fits')
    else:
        print(
            f'{total}: DOES NOT FIT. Lower {key} (--largest finds the largest that fits)'
            f'{", set the keyword remat to block" if compiled.step == "training" else ""}, or take '
            'more devices'
        )
    print(f'  attention                  {describe_choices(compiled.attention) or "none"}')
    if compiled.text:
        _print_text(ahead, compiled.text)
    flops = ahead.flops(compiled)
    line = f'  FLOPs of the model         {flops / 1e9:8,.0f} G'
    if chip.bfloat16_tflops:
        peak = chip.bfloat16_tflops / ahead.per_chip
        ms = flops / peak / 1e9
        line += f'; {ms:.4g} ms at the bfloat16 peak of {peak:.0f} TFLOP/s'
        line += f', {2 * ms:.4g} ms at half of it'
    print(line)
    if compiled.text:
        moved = compiled.text.bytes_moved()
        line = f'  bytes read and written     {moved / 1e9:8.2f} GB'
        if chip.bandwidth_gbps:
            bandwidth = chip.bandwidth_gbps / ahead.per_chip
            line += f'; {1e3 * moved / 1e9 / bandwidth:.1f} ms at {bandwidth:.0f} GB/s'
        print(line)


def _print_text(ahead: Ahead, text: CompiledText):
    found = text.collectives()
    parts = [f'{x.count} {kind}, {x.delivered / 1e6:,.1f} MB' for kind, x in found.items()]
    print(f'  collectives                {"; ".join(parts) or "none"}')
    if found:
        sent = text.sent()
        seconds = ahead.target.link_seconds(sent * ahead.per_chip)
        took = f'; {1e3 * seconds:.2f} ms over the published links' if seconds else ''
        print(f'  sent to other devices      {sent / 1e6:,.1f} MB{took}')
    kernels = [f'{n} {name}' for name, n in sorted(text.kernels().items(), key=lambda x: -x[1])]
    print(f'  kernels                    {"; ".join(kernels) or "none"}')


def _print_largest(ahead: Ahead, step: str, compiled: Compiled | None, key: str):
    if compiled is None:
        print(f'  largest that fits: none, not even {key}={ahead.smallest_batch(step)}')
        return
    print(
        f'  largest that fits: {key}={compiled.batch_size}, {compiled.memory.total / GIB:.2f} of '
        f'{ahead.capacity / GIB:.2f} GiB'
    )


def read_available_memory(message: str) -> float | None:
    """The bytes that a compiler for TPUs says it may use; None if the message does not say it."""
    match = re.search(r'available HBM \(([\d.]+)G\)', message)
    return float(match[1]) * GIB if match else None


def read_out_of_memory(message: str) -> float | None:
    """The bytes that a compiler names in an out-of-memory message; None for any other message."""
    if 'RESOURCE_EXHAUSTED' not in message:
        return None
    units = {'K': 2**10, 'M': 2**20, 'G': 2**30}
    sizes = [float(n) * units[unit] for n, unit in re.findall(r'([\d.]+)([KMG])\b', message)]
    return max(sizes, default=None)
