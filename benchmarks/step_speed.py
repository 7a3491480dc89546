"""Forward pass and training step of a model under several attention implementations, in one run.

    python benchmarks/step_speed.py --model=vivit_joint --size=B/16x2 --batch_size=8 \
        --dtype=bfloat16 --attention=auto,einsum

Printed are the median of the times taken in turn, the memory that the compiled program needs beside
its arguments, and the part of this device's own speed in large matrix products (measured in the
same run) that the model's multiply-adds reach; a training step counts three times its forward pass.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vivit_jax import create_model
from vivit_jax.augment.policy import Augmentation
from vivit_jax.data.preprocessing import Preprocessing
from vivit_jax.models.cost import count_macs, model_call, plain_form
from vivit_jax.train.state import init_state
from vivit_jax.train.step import create_forward, create_train_step

_MATRIX = 4096


def main():
    """Prints a line per implementation and program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--model', default='vivit_joint')
    parser.add_argument('--size', default='B/16x2')
    parser.add_argument('--batch_size', type=int, default=1)
    parser.add_argument('--frames', type=int, default=32)
    parser.add_argument('--crop_size', type=int, default=224)
    parser.add_argument('--dtype', default='bfloat16')
    parser.add_argument('--attention', default='auto,einsum')
    parser.add_argument('--remat', default='none')
    parser.add_argument('--turns', type=int, default=5)
    args = parser.parse_args()

    spec = Preprocessing(
        num_frames=args.frames, short_side=args.crop_size, crop_size=args.crop_size
    )
    shape = (args.batch_size, args.frames, args.crop_size, args.crop_size, 3)
    rgb = jnp.asarray(np.random.default_rng(0).integers(0, 256, shape), jnp.uint8)
    batch = {'rgb': rgb, 'label': jnp.zeros(args.batch_size, jnp.int32)}
    schedule = optax.constant_schedule(1e-3)
    optimizer = optax.sgd(schedule, momentum=0.9)

    programs = {}
    for attention in args.attention.split(','):
        model = create_model(
            args.model,
            args.size,
            dtype=args.dtype,
            remat=args.remat,
            attention_implementation=attention,
        )
        state = jax.jit(lambda m=model: init_state(jax.random.key(0), m, optimizer, spec))()
        forward = create_forward(model, spec)
        step = create_train_step(
            model, optimizer, schedule, spec, Augmentation(), label_smoothing=0.0, seed=0
        )
        programs[attention, 'forward'] = _compile(forward, {'params': state.params}, rgb)
        programs[attention, 'training'] = _compile(step, state, batch)
    call = model_call(plain_form(model), jax.ShapeDtypeStruct(shape, jnp.float32))
    macs, _ = count_macs(call.function, call.params, *call.inputs)

    x = jnp.ones((_MATRIX, _MATRIX), args.dtype)
    programs['matrix', 'product'] = _compile(jnp.matmul, x, x)
    times = {name: [] for name in programs}
    for _ in range(args.turns):
        for name, (run, _) in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(run())
            times[name].append(time.perf_counter() - start)

    peak = 2 * _MATRIX**3 / statistics.median(times.pop(('matrix', 'product')))
    print(f'{jax.devices()[0].device_kind}, matrix products {peak / 1e12:.2f} TFLOP/s {args.dtype}')
    print(f'{args.model} {args.size}, clips {shape}, remat {args.remat}, {args.turns} turns')
    for (attention, program), measured in times.items():
        seconds = statistics.median(measured)
        flops = 2 * macs * (3 if program == 'training' else 1)
        print(
            f'{attention:8} {program:9} {1e3 * seconds:9.1f} ms '
            f'{programs[attention, program][1] / 2**20:8.0f} MiB '
            f'{100 * flops / seconds / peak:5.1f} % of the matrix peak'
        )


def _compile(function: Callable, *args) -> tuple[Callable, int]:
    compiled = jax.jit(function).lower(*args).compile()
    jax.block_until_ready(compiled(*args))
    return lambda: compiled(*args), compiled.memory_analysis().temp_size_in_bytes


if __name__ == '__main__':
    main()
