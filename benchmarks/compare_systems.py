"""Trains every model of the package for the same time on the same videos.

    python benchmarks/compare_systems.py --config=configs/demo.py --output=runs/compare
    python benchmarks/compare_systems.py --config=configs/custom.py --output=runs/compare-mine \
        --config.data.train_csv=my_videos/train.csv --config.data.test_csv=my_videos/test.csv

The config must take a model after a colon, as in `configs/demo.py:ctn`; further `--config.KEY=...`
apply to all models. First, training steps of all models are timed in turn, on a batch in memory.
Then `python -m vivit_jax.main` trains each model for as many steps as fit into `--minutes`, and
tests it. After an interruption, the same command continues where it stopped. Prints a table in
Markdown.
"""

import argparse
import json
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict, config_flags

from vivit_jax.costs import count_costs, count_parameters, model_call, plain_form
from vivit_jax.models.registry import list_models
from vivit_jax.models.variables import abstract_clip
from vivit_jax.train.experiment import Experiment


def main():
    """Trains the models that are not trained yet, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument('--config', required=True, help='file without the model')
    parser.add_argument('--output', type=Path, required=True, help='folder of the runs')
    parser.add_argument('--minutes', type=float, default=5, help='of training steps, per model')
    parser.add_argument('--models', default=','.join(list_models()))
    parser.add_argument('--turns', type=int, default=20, help='timed steps of each model')
    args, overrides = parser.parse_known_args()

    args.output.mkdir(parents=True, exist_ok=True)
    models = args.models.split(',')
    facts = _facts(args.output / 'models.json', models, args, overrides)
    for model in models:
        num_steps = max(1, round(args.minutes * 60e3 / facts[model]['step_ms']))
        folder = args.output / model
        result = _result(folder, num_steps)
        if result is None:
            _train(f'{args.config}:{model}', folder, num_steps, overrides)
            result = _result(folder, num_steps)
        facts[model] |= {'steps': num_steps, **result}
    _print_table(facts, models)


def _leave_to_the_run(*_):
    """Ignores Ctrl-C: the training gets it too, saves a checkpoint, and then this process ends."""


def _facts(
    path: Path, models: Sequence[str], args: argparse.Namespace, overrides: list[str]
) -> dict[str, dict]:
    """Parameters, multiply-adds and step time of every model, from a file if measured before."""
    what, facts = [args.config, *overrides], {}
    if path.exists():
        found = json.loads(path.read_text())
        if found['what'] != what:
            sys.exit(f'Error: {path} is of {" ".join(found["what"])}: give another --output')
        facts = found['models']
    missing = [model for model in models if model not in facts]
    if missing:
        experiments = {
            model: Experiment(_config(args.config, model, overrides)) for model in missing
        }
        times = _time_steps(experiments, args.turns)
        for model, experiment in experiments.items():
            programs = experiment.programs
            clip = abstract_clip(programs.model.spec, programs.spec.clip_shape)
            call = model_call(plain_form(programs.model), clip)
            facts[model] = {
                'parameters': count_parameters(call.params),
                'gmac': count_costs(call)['GMAC'],
                'step_ms': times[model],
            }
        path.write_text(json.dumps({'what': what, 'models': facts}, indent=2))
    return facts


def _config(file: str, model: str, overrides: list[str]) -> ConfigDict:
    values = flags.FlagValues()
    config_flags.DEFINE_config_file('config', flag_values=values)
    values(['compare_systems', f'--config={file}:{model}', *overrides])
    return values['config'].value


def _time_steps(experiments: dict[str, Experiment], turns: int) -> dict[str, float]:
    """Median milliseconds of a training step of each model; the models take turns."""
    states, runs, times = {}, {}, {model: [] for model in experiments}
    for model, experiment in experiments.items():
        print(f'Compiling {model}', file=sys.stderr)
        programs, batch_size = experiment.programs, experiment.config.train.batch_size
        batch = jax.tree.map(_random_values, programs.abstract_batch(batch_size))
        with jax.set_mesh(experiment.mesh):
            state = jax.jit(programs.create_state, out_shardings=programs.state_sharding)()
            runs[model] = programs.train_step(), batch
            states[model], _ = jax.block_until_ready(runs[model][0](state, batch))
    for _ in range(turns):
        for model, (step, batch) in runs.items():
            start = time.perf_counter()
            with jax.set_mesh(experiments[model].mesh):
                states[model], _ = jax.block_until_ready(step(states[model], batch))
            times[model].append(1e3 * (time.perf_counter() - start))
    return {model: statistics.median(found) for model, found in times.items()}


def _random_values(x: jax.ShapeDtypeStruct) -> jax.Array:
    """Zeros and ones, which are pixels, depths and labels."""
    return jax.device_put(np.random.default_rng(0).integers(0, 2, x.shape, x.dtype), x.sharding)


def _train(config: str, folder: Path, num_steps: int, overrides: list[str]):
    durations = {
        'train.num': num_steps,
        'train.warmup': num_steps // 20,
        'train.checkpoint_every': -(-num_steps // 10),
        'eval.every': -(-num_steps // 5),
    }
    command = [sys.executable, '-m', 'vivit_jax.main', f'--config={config}', f'--workdir={folder}']
    for key, steps in durations.items():
        command += [f'--config.{key}_steps={steps}']
    print(*command, *overrides, file=sys.stderr)
    handler = signal.signal(signal.SIGINT, _leave_to_the_run)
    status = subprocess.run([*command, *overrides], check=False).returncode
    signal.signal(signal.SIGINT, handler)
    if status:
        sys.exit(status)


def _result(folder: Path, num_steps: int) -> dict | None:
    """Accuracy and protocol of the test after `num_steps` steps, if there was one."""
    for path in (folder / 'evaluation').glob(f'*_step{num_steps}.json'):
        found = json.loads(path.read_text())
        accuracy = found[f'{found["split"]}/acc1@{found["views"]}']
        return {'accuracy': accuracy, 'protocol': f'{found["split"]}, {found["views"]} views'}
    return None


def _print_table(facts: dict[str, dict], models: Sequence[str]):
    protocol = facts[models[0]]['protocol']
    print(f'| model | top-1 ({protocol}) | parameters | GMAC a clip | step | steps |')
    print('|---|---|---|---|---|---|')
    for model in models:
        row = facts[model]
        print(
            f'| `{model}` | {100 * row["accuracy"]:.1f} % | {row["parameters"] / 1e6:.2f} M '
            f'| {row["gmac"]:.3f} | {row["step_ms"]:.0f} ms | {row["steps"]:,} |'
        )


if __name__ == '__main__':
    main()
