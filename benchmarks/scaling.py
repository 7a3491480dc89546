"""How a training step scales with the number of devices: here, and on paper for large machines.

    python benchmarks/scaling.py
    python benchmarks/scaling.py --targets=v5e:2x4,v5e:4x4,v5e:8x8,v5e:16x16 \
        --config=configs/kinetics400_fe.py --per_device=8

Each device has the same number of clips, however many devices there are (weak scaling). All rows
run one after the other, each in processes of its own. The tables have, for data parallel (`data`)
and fully sharded (`fsdp`) training, in which at most `--fsdp` devices split the parameters among
them:

- FLOPs of the matrix products of one device, over the FLOPs of a device that trains alone: 1 is
  ideal.
- Bytes that one device sends, from the compiled program, over the least that is possible: each
  gradient goes around a ring of all devices once (`data`), or each parameter is gathered once and
  each gradient scattered once (`fsdp`).
- Without `--targets`: clips per second of all devices, over the clips per second of one device, in
  one process with several simulated devices, and in several processes. All devices share the cores
  of this machine, so 1 is ideal.
- With `--targets`: the time of the FLOPs at half of the published peak, the time of the bytes over
  the published links, and their share of the step if nothing overlaps. Nothing is run.
"""

import argparse
import math
import multiprocessing
import os
import socket
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags
from ml_collections import ConfigDict, config_flags

from vivit_jax.ahead import Ahead
from vivit_jax.config import load
from vivit_jax.errors import UserError
from vivit_jax.parallel.compiled import CompiledText
from vivit_jax.parallel.distributed import initialize
from vivit_jax.parallel.mesh import batch_sharding, create_mesh
from vivit_jax.parallel.targets import parse_target, start_cpu_devices
from vivit_jax.parallel.to_device import find_host, to_global
from vivit_jax.parameter_names import parameter_names
from vivit_jax.train.first_state import create_first_state
from vivit_jax.train.programs import Programs

_SMALL = ('vivit_joint', 'hidden_size=256', 'num_layers=4', 'num_heads=4', 'mlp_dim=1024')
_CLASSES = 16


def main():
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--devices', default='1,2,4,8', help='simulated in one process')
    parser.add_argument('--processes', default='1,2,4', help='with one device each')
    parser.add_argument('--per_device', type=int, default=2, help='clips')
    parser.add_argument('--splits', default='data,fsdp')
    parser.add_argument('--fsdp', type=int, default=16, help='most devices that split parameters')
    parser.add_argument('--steps', type=int, default=10, help='timed steps of each row')
    parser.add_argument('--targets', help='such as h100:8,h100:16: compiles, and runs nothing')
    parser.add_argument('--full', action='store_true', help='optimizes programs for TPUs fully')
    args, overrides = parser.parse_known_args()
    if unknown := set(args.splits.split(',')) - {'data', 'fsdp'}:
        parser.error(f'--splits: {", ".join(unknown)} is neither data nor fsdp')
    if overrides and not args.targets:
        parser.error(f'{" ".join(overrides)} has a meaning with --targets only')
    if args.targets:
        try:
            targets = list(map(parse_target, args.targets.split(',')))
        except UserError as error:
            parser.error(str(error))
        for target in targets:
            if not target.chip.link_gbps or not target.can_compile:
                parser.error(
                    f'--targets: {target.name} has no published figures, or its compiler is not '
                    f"installed (pip install -e '.[tpu]' or '.[cuda12]')"
                )
        _print_targets(args, _parse_config(overrides))
        return
    for where, numbers, measure in (
        ('simulated devices', args.devices, _on_devices),
        ('processes', args.processes, _on_processes),
    ):
        print(f'\n| {where} | split | FLOPs of a device | sent, MB | over the least | clips/s |')
        print('|---|---|---|---|---|---|')
        for split in args.splits.split(','):
            first = None
            for number in map(int, numbers.split(',')):
                sizes = _sizes(split, args.fsdp, number)
                row = measure(number, sizes, args.per_device, args.steps)
                first = first or row
                print(
                    f'| {number} | {split} | {row["flops"] / first["flops"]:.2f} | '
                    f'{row["sent"] / 1e6:.1f} | {_ratio(row)} | '
                    f'{row["clips_per_s"] / first["clips_per_s"]:.2f} |',
                    flush=True,
                )


def _parse_config(arguments: list[str]) -> ConfigDict:
    """The config of `--config=FILE --config.KEY=...`; FE if there is none."""
    values = flags.FlagValues()
    config_flags.DEFINE_config_file('config', 'configs/kinetics400_fe.py', flag_values=values)
    values(['', *arguments])
    return values.config


def _print_targets(args: argparse.Namespace, config: ConfigDict):
    print(
        '| target | split | sent, MB | over the least | FLOPs, ms | links, ms | share of links |'
        ' memory, GiB |\n|---|---|---|---|---|---|---|---|'
    )
    for split in args.splits.split(','):
        for target in args.targets.split(','):
            sizes = _sizes(split, args.fsdp, parse_target(target).num_chips)
            row = _alone(_on_target, target, sizes, config, args.per_device, not args.full)
            total = row['flops_ms'] + row['links_ms']
            print(
                f'| `{target}` | {split} | {row["sent"] / 1e6:.1f} | {_ratio(row)} | '
                f'{row["flops_ms"]:.1f} | {row["links_ms"]:.2f} | {row["links_ms"] / total:.1%} | '
                f'{row["gib"]:.1f} |',
                flush=True,
            )


def _sizes(split: str, most: int, devices: int) -> tuple[int, int, int]:
    """Sizes of the axes `data`, `fsdp` and `tensor`."""
    return -1, min(most, devices) if split == 'fsdp' else 1, 1


def _ratio(row: dict) -> str:
    return f'{row["sent"] / row["least"]:.2f}' if row['least'] else '-'


def _alone(function: Callable[..., dict], *args) -> dict:
    """Calls a function in a process of its own."""
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(1, context) as pool:
        return pool.submit(function, *args).result()


def _on_devices(number: int, *args) -> dict:
    return _alone(_measure_devices, number, *args)


def _measure_devices(number: int, *args) -> dict:
    start_cpu_devices(number)
    return _measure(*args)


def _on_processes(number: int, *args) -> dict:
    with socket.socket() as found:
        found.bind(('localhost', 0))
        port = found.getsockname()[1]
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(number, context, max_tasks_per_child=1) as pool:
        address = f'localhost:{port}'
        rows = [pool.submit(_measure_process, address, number, i, *args) for i in range(number)]
        results = [row.result() for row in rows]  # an error in any process is raised here
        return results[0]


def _measure_process(address: str, number: int, index: int, *args) -> dict:
    os.environ |= {
        'JAX_COORDINATOR_ADDRESS': address,
        'JAX_NUM_PROCESSES': str(number),
        'JAX_PROCESS_ID': str(index),
    }
    jax.config.update('jax_platforms', 'cpu')
    initialize()
    return _measure(*args)


def _measure(sizes: tuple[int, int, int], per_device: int, steps: int) -> dict:
    """Compiles and times the training step of a small model on all devices of all processes."""
    config = load.model_config(*_SMALL)
    config.preprocessing.update(num_frames=8, short_side=64, crop_size=64)
    mesh = create_mesh(sizes)
    programs = Programs(config, mesh, _CLASSES, optax.constant_schedule(1e-3))
    batch_size = per_device * mesh.size
    with jax.set_mesh(mesh):
        shapes = programs.abstract_state, programs.abstract_batch(batch_size)
        step = programs.train_step().lower(*shapes).compile()
        state, batch = create_first_state(programs), _random_batch(programs, batch_size)
        times = []
        for _ in range(steps + 1):
            began = time.perf_counter()
            state, metrics = step(state, batch)
            jax.block_until_ready((state, metrics))
            times.append(time.perf_counter() - began)
    text = CompiledText(step.as_text())
    return {
        'clips_per_s': batch_size / statistics.median(times[1:]),
        'flops': text.product_flops(),
        'sent': text.sent(),
        'least': least_sent(programs),
    }


def _random_batch(programs: Programs, batch_size: int) -> dict:
    rows = batch_size // find_host(programs.mesh).count
    clip = (rows, *programs.spec.clip_shape, 3)
    rng = np.random.default_rng(0)
    batch = {
        'rgb': rng.integers(0, 256, clip, np.uint8),
        'label': rng.integers(0, _CLASSES, rows, np.int32),
    }
    return to_global(batch, batch_sharding(programs.mesh), batch)


def _on_target(
    target: str, sizes: tuple[int, int, int], config: ConfigDict, per_device: int, quick: bool
) -> dict:
    """Compiles the training step of a config for devices that are not here."""
    data, fsdp, tensor = sizes
    config.parallel.update(data=data, fsdp=fsdp, tensor=tensor)
    # The batches of the file may not divide among the devices.
    config.train.batch_size = config.eval.batch_size = 2**20
    ahead = Ahead(config, target, quick)
    compiled = ahead.compile('training', per_device * ahead.mesh.size)
    peak = ahead.target.chip.bfloat16_tflops / ahead.per_chip
    sent = compiled.text.sent()
    return {
        'sent': sent,
        'least': least_sent(ahead.programs),
        'flops_ms': 2 * ahead.flops(compiled) / peak / 1e9,
        'links_ms': 1e3 * ahead.target.link_seconds(sent * ahead.per_chip),
        'gib': compiled.memory.total / 2**30,
    }


def least_sent(programs: Programs) -> float:
    """The fewest bytes that a device can send in a training step, see the top of the file.

    Gradients have the type that the model computes in; the classifier computes in float32.
    """
    params, mesh = programs.abstract_state.params, programs.mesh
    data, fsdp = (1 - 1 / mesh.shape[axis] for axis in ('data', 'fsdp'))  # around a ring
    everyone, total = 1 - 1 / mesh.size, 0.0
    itemsize = jnp.dtype(programs.model.spec.dtype).itemsize
    named = zip(jax.tree.leaves(parameter_names(params)), jax.tree.leaves(params), strict=True)
    for name, x in named:
        size = math.prod(x.shape) * (4 if 'output_projection' in name else itemsize)
        if x.sharding.is_fully_replicated:
            total += 2 * everyone * size
        else:
            total += 2 * (fsdp + data / mesh.shape['fsdp']) * size
    return total


if __name__ == '__main__':
    main()
