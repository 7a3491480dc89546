"""Augmentation on the device: each part, whole recipes, and their share of a training step.

    python benchmarks/augment_speed.py --batch_size=2
    python benchmarks/augment_speed.py --batch_size=1 --step
    python benchmarks/augment_speed.py --demo --step

The clips and the model are ViViT-B/16x2 (factorized encoder), or, with `--demo`, the ones in
configs/demo.py. All programs take turns. The table has the median time of each, and of a program
that only normalizes. Every turn has its own random key, because the key decides which operations
a clip gets.
"""

import argparse
import dataclasses
import runpy
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from accelerator_sections.models import EPIC
from ml_collections import ConfigDict

from vivit_jax import create_model
from vivit_jax.augment.batch import augment_batch
from vivit_jax.augment.policy import Augmentation
from vivit_jax.config import load
from vivit_jax.config.schema import default_config
from vivit_jax.train.state import TrainState, init_state
from vivit_jax.train.step import create_train_step
from vivit_jax.video.preprocessing import Preprocessing

_DEMO = Path(__file__).parents[1] / 'configs/demo.py'

POLICIES = {
    'normalize only': Augmentation(),
    'flip': Augmentation(flip=0.5),
    'color jitter': Augmentation(color_jitter=1.0),
    'color drop': Augmentation(color_drop=1.0),
    'RandAugment, one layer': Augmentation(randaugment_layers=1, randaugment_magnitude=15.0),
    'erasing': Augmentation(erase=1.0),
    'mixup': Augmentation(mixup_alpha=0.3),
    'cutmix': Augmentation(cutmix_alpha=1.0),
    'Kinetics recipe': Augmentation(flip=0.5, color_jitter=0.8, color_drop=0.1),
    'Epic Kitchens recipe': EPIC,
    'the same, all operations': dataclasses.replace(EPIC, randaugment_geometry=True),
    'the same and erasing': dataclasses.replace(EPIC, randaugment_geometry=True, erase=0.25),
}
_STEP_POLICIES = ('Kinetics recipe', 'Epic Kitchens recipe', 'the same and erasing')


def main():
    """Prints a line per policy."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--batch_size', type=int, help="default: 1, or the demo's")
    parser.add_argument('--dtype', default='bfloat16', help='of the model')
    parser.add_argument('--turns', type=int, default=15)
    parser.add_argument('--step', action='store_true', help='compare with training steps')
    parser.add_argument('--demo', action='store_true', help='sizes of configs/demo.py')
    args = parser.parse_args()

    if args.demo:
        config = runpy.run_path(str(_DEMO))['get_config']()
        config.model.num_classes = 8
    else:
        config = default_config()
        config.model.update(size='B/16x2', dtype=args.dtype)
        config.train.batch_size = 1
    spec = load.preprocessing(config)
    batch_size = args.batch_size or config.train.batch_size
    shape = (batch_size, *spec.clip_shape, 3)
    rgb = jnp.asarray(np.random.default_rng(0).integers(0, 256, shape), jnp.uint8)

    programs = {name: _augmentation(rgb, policy, spec) for name, policy in POLICIES.items()}
    if args.step:
        steps = {f'step, {name}': _training(config, rgb, spec, name) for name in _STEP_POLICIES}
        programs = {name: programs[name] for name in _STEP_POLICIES} | steps
    times = _take_turns(programs, args.turns)
    print(f'{jax.devices()[0].device_kind}, clips {shape}, {args.turns} turns')
    for name, seconds in times.items():
        line = f'{name:34} {1e3 * seconds:9.2f} ms {1e3 * seconds / batch_size:9.2f} ms per clip'
        if args.step and name in _STEP_POLICIES:
            line += f' {100 * seconds / times[f"step, {name}"]:6.2f} % of the step'
        print(line)


def _augmentation(rgb: jax.Array, policy: Augmentation, spec: Preprocessing) -> Callable:
    """Makes a function from the number of a turn to the augmented batch."""

    @jax.jit
    def run(key: jax.Array, rgb: jax.Array):
        batch = {'rgb': rgb, 'label': jnp.arange(len(rgb))}
        return augment_batch(
            tuple(jax.random.split(key, 3)), batch, policy, spec=spec, num_classes=400
        )

    return lambda turn: run(jax.random.key(turn), rgb)


def _training(config: ConfigDict, rgb: jax.Array, spec: Preprocessing, name: str) -> Callable:
    """Makes a function from the number of a turn to the state after that training step."""
    model = create_model(**load.model_keywords(config))
    schedule = optax.constant_schedule(1e-3)
    optimizer = optax.sgd(schedule, momentum=0.9)
    state: TrainState = jax.jit(lambda: init_state(jax.random.key(0), model, optimizer, spec))()
    step = create_train_step(
        model, optimizer, schedule, spec, POLICIES[name], label_smoothing=0.1, seed=0
    )
    step = jax.jit(step)
    batch = {'rgb': rgb, 'label': jnp.zeros(len(rgb), jnp.int32)}
    return lambda turn: step(state.replace(step=jnp.int32(turn)), batch)


def _take_turns(programs: dict[str, Callable], turns: int) -> dict[str, float]:
    """The median seconds of each function."""
    times = {name: [] for name in programs}
    for turn in range(-1, turns):  # the first compiles
        for name, run in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(run(turn + 1))
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(measured[1:]) for name, measured in times.items()}


if __name__ == '__main__':
    main()
