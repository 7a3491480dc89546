"""Measures forward pass and training step of a model for several values of a keyword.

    python benchmarks/step_speed.py --vary=attention_implementation=auto,einsum \
        vivit_joint size=B/16x2 dtype=bfloat16
    python benchmarks/step_speed.py --vary=pos_embed=absolute,rpe --frames=16 rpe_stdt

The model and its keywords are given as to `python -m vivit_jax.summary`. All values take turns. The
table has the median time, the median ratio to the first value, the memory that the compiled program
needs beside its arguments, and the speed of the model's multiply-adds as a share of this device's
speed in large matrix products (measured in the same run). A training step counts as three forward
passes.
"""

import argparse
import dataclasses
import re
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vivit_jax import create_model
from vivit_jax.augment.policy import Augmentation
from vivit_jax.config import load
from vivit_jax.costs import count_macs, model_call, plain_form
from vivit_jax.evaluation.forward import create_forward
from vivit_jax.train.state import init_state
from vivit_jax.train.step import create_train_step
from vivit_jax.video.preprocessing import Preprocessing

_MATRIX = 4096


@dataclasses.dataclass
class _Program:
    """A compiled function with its arguments; times in seconds."""

    run: Callable
    macs: float
    temp_mib: float
    times: list[float] = dataclasses.field(default_factory=list)


def main():
    """Prints a line per value and program."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('model', nargs='+', help='its name, then keyword=value')
    parser.add_argument('--vary', default='attention_implementation=auto,einsum')
    parser.add_argument('--batch_size', type=int, default=1)
    parser.add_argument('--frames', type=int, default=32)
    parser.add_argument('--crop_size', type=int, default=224)
    parser.add_argument('--turns', type=int, default=5)
    args = parser.parse_args()
    keyword, _, values = args.vary.partition('=')
    values = re.findall(r'\([^)]*\)|[^,]+', values)  # of tuples, in brackets, each is one

    spec = Preprocessing(
        num_frames=args.frames, short_side=args.crop_size, crop_size=args.crop_size
    )
    shape = (args.batch_size, args.frames, args.crop_size, args.crop_size, 3)
    programs = {}
    for value in values:
        config = load.model_config(*args.model, f'{keyword}={value}')
        model = create_model(**load.model_keywords(config))
        programs |= {(value, name): x for name, x in _compile_model(model, spec, shape).items()}
    x = jnp.ones((_MATRIX, _MATRIX), model.spec.dtype)  # the type of the last model
    product = _compile(_MATRIX**3, jnp.matmul, x, x)
    for _ in range(args.turns):
        for program in (product, *programs.values()):
            start = time.perf_counter()
            jax.block_until_ready(program.run())
            program.times.append(time.perf_counter() - start)

    peak = product.macs / statistics.median(product.times)
    print(f'{jax.devices()[0].device_kind}, matrix products {2e-12 * peak:.2f} TFLOP/s {x.dtype}')
    print(*args.model, f'{keyword}, clips {shape}, {args.turns} turns')
    for (value, name), program in programs.items():
        seconds = statistics.median(program.times)
        first = programs[values[0], name].times
        ratio = statistics.median(x / y for x, y in zip(program.times, first, strict=True))
        print(
            f'{value:10} {name:9} {1e3 * seconds:9.1f} ms {ratio:6.2f} x '
            f'{program.temp_mib:8.0f} MiB {100 * program.macs / seconds / peak:5.1f} % of the peak'
        )


def _compile_model(model, spec: Preprocessing, shape: tuple[int, ...]) -> dict[str, _Program]:
    rgb = jnp.asarray(np.random.default_rng(0).integers(0, 256, shape), jnp.uint8)
    batch = {'rgb': rgb, 'label': jnp.zeros(len(rgb), jnp.int32)}
    schedule = optax.constant_schedule(1e-3)
    optimizer = optax.sgd(schedule, momentum=0.9)
    state = jax.jit(lambda: init_state(jax.random.key(0), model, optimizer, spec))()
    step = create_train_step(
        model, optimizer, schedule, spec, Augmentation(), label_smoothing=0.0, seed=0
    )
    call = model_call(plain_form(model), jax.ShapeDtypeStruct(shape, jnp.float32))
    macs, _ = count_macs(call.function, *call.args)
    return {
        'forward': _compile(macs, create_forward(model, spec), state.eval_variables, rgb),
        'training': _compile(3 * macs, step, state, batch),
    }


def _compile(macs: float, function: Callable, *args) -> _Program:
    compiled = jax.jit(function).lower(*args).compile()
    jax.block_until_ready(compiled(*args))
    temp_mib = compiled.memory_analysis().temp_size_in_bytes / 2**20
    return _Program(lambda: compiled(*args), macs, temp_mib)


if __name__ == '__main__':
    main()
