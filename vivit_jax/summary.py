"""Parameters, multiply-adds and memory of a model and its parts, from shapes alone.

    python -m vivit_jax.summary --config=configs/kinetics400_fe.py
    python -m vivit_jax.summary vivit_joint size=L/16x2 num_classes=600 --frames=16
    python -m vivit_jax.summary --reference
    python -m vivit_jax.summary --config=configs/kinetics400_fe.py --target=h100:8

Nothing is run or held in memory. In the second form, settings that are not given come from
`default_config`. The last form compiles the training step and the evaluation step for devices that
this machine need not have: TPUs (`v5e:2x4`, `v4:2x2x1`), NVIDIA GPUs (`h100:8`) or CPU devices
(`cpu:1`).
"""

if __name__ == '__main__':  # before the slow imports
    from vivit_jax.signals import end_on_ctrl_c

    end_on_ctrl_c()

import sys

import flax.linen as nn
import jax
import optax
from absl import flags
from ml_collections import ConfigDict, config_flags

from vivit_jax import terminal
from vivit_jax.config import command_line, load
from vivit_jax.costs import (
    PLAIN_FORM,
    Call,
    activation_bytes,
    count_bytes,
    count_costs,
    count_parameters,
    model_call,
    part_calls,
    plain_form,
)
from vivit_jax.errors import UserError
from vivit_jax.models.published import TOLERANCES, published_models
from vivit_jax.models.registry import create_model
from vivit_jax.models.variables import abstract_clip
from vivit_jax.train.optimizer import create_optimizer
from vivit_jax.train.recipe import complete

_CONFIG = config_flags.DEFINE_config_file('config', help_string='A file of configs/[:argument].')
_FRAMES = flags.DEFINE_integer('frames', None, 'Frames of a clip.', lower_bound=1)
_CROP_SIZE = flags.DEFINE_integer('crop_size', None, "Pixels of a clip's sides.", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer('batch_size', None, 'Clips of a step.', lower_bound=1)
_REFERENCE = flags.DEFINE_bool('reference', False, 'Compare published models with their papers.')
_TARGET = flags.DEFINE_string('target', None, 'Compile for CHIP:COUNT, such as h100:8 or v5e:2x4.')
_LARGEST = flags.DEFINE_bool('largest', False, 'With --target, find the largest batch that fits.')
_QUICK = flags.DEFINE_bool('quick', False, 'With --target, compile for TPUs with least effort.')

_NOTES = """
GMAC      1e9 multiply-adds of matrix products and convolutions, each counted once
GMAC-lin  GMAC of products with parameters, without the attention products QK^T and AV
XLA/2     half of XLA's FLOPs: GMAC and half of the element-wise operations, as ViViT counts
2xGMAC    two FLOPs for each multiply-add
          Costs are for one clip in inference mode: einsum attention, layers unrolled, no remat,
          float32
kept      activations that the backward pass of a batch of {batch_size} needs, on all devices
          together, before XLA optimizes:
          {form}, on {backend}
state     float32 parameters, their gradients, and the state of {optimizer}"""

_DECIMALS = {'parameters': 0, 'kept MiB': 1, 'state MiB': 1}


def summarize(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    clip_size: tuple[int, int, int],
    batch_size: int,
) -> dict[str, dict[str, float]]:
    """Counts a model and its top-level parts.

    Args:
        model: the model, with the keywords with which it is trained.
        optimizer: the optimizer that trains it.
        clip_size: (t, h, w) in frames and pixels.
        batch_size: clips of a training step.

    Returns:
        A row for each part, for everything outside of the parts (`'other'`), and for the whole
        model (`'total'`). Its columns are `parameters`; the costs of one clip, see `count_costs`;
        `kept MiB`, the activations of a batch; and `state MiB`, the parameters, their gradients and
        the optimizer's state.

    Raises:
        ValueError: the model does not take such clips.
    """
    clip, batch = (abstract_clip(model.spec, clip_size, size) for size in (1, batch_size))
    plain = plain_form(model)

    def count(inference: list[Call], training: list[Call]) -> dict[str, float]:
        params = inference[0].params
        optimizer_state = jax.eval_shape(optimizer.init, params)
        costs = [count_costs(call) for call in inference]
        kept = sum(activation_bytes(call.function, *call.args) for call in training)
        return {
            'parameters': count_parameters(params),
            **{name: sum(cost[name] for cost in costs) for name in costs[0]},
            'kept MiB': kept / 2**20,
            'state MiB': (2 * count_bytes(params) + count_bytes(optimizer_state)) / 2**20,
        }

    inference, training = part_calls(plain, clip), part_calls(model, batch, train=True)
    rows = {name: count(inference[name], training[name]) for name in inference}
    total = count([model_call(plain, clip)], [model_call(model, batch, train=True)])
    other = {name: total[name] - sum(row[name] for row in rows.values()) for name in total}
    return {**rows, 'other': other, 'total': total}


def main(words: list[str]) -> int:
    """Prints a table; returns 1 if `--reference` finds a count that deviates."""
    if (_CONFIG.value is not None) + bool(words) + _REFERENCE.value != 1:
        raise UserError('name either a config, or a model with its keywords, or --reference')
    if not _TARGET.value and (_LARGEST.value or _QUICK.value):
        raise UserError('--largest and --quick need a --target to compile for, such as h100:8')
    if _REFERENCE.value:
        return _print_references()
    config = _CONFIG.value or load.model_config(*words)
    complete(config)
    if _TARGET.value:
        _print_target(config)
    else:
        _print_summary(config)
    return 0


def _print_target(config: ConfigDict):
    from vivit_jax.ahead import print_report

    config = config.copy_and_resolve_references()
    size = config.preprocessing
    size.num_frames = _FRAMES.value or size.num_frames
    size.crop_size = _CROP_SIZE.value or size.crop_size
    size.short_side = max(size.short_side, size.crop_size)
    config.train.batch_size = _BATCH_SIZE.value or config.train.batch_size
    config.eval.batch_size = _BATCH_SIZE.value or config.eval.batch_size
    print_report(config, _TARGET.value, largest=_LARGEST.value, quick=_QUICK.value)


def _print_summary(config: ConfigDict):
    side = _CROP_SIZE.value or config.preprocessing.crop_size
    clip_size = (_FRAMES.value or config.preprocessing.num_frames, side, side)
    batch_size = _BATCH_SIZE.value or config.train.batch_size
    load.check_ranges(config)
    keywords = load.model_keywords(config)
    optimizer = create_optimizer(config.train, optax.constant_schedule(0.0))
    try:
        model = create_model(**keywords)
        rows = summarize(model, optimizer, clip_size, batch_size)
    except (ValueError, RuntimeError) as error:  # RuntimeError: there is no cuDNN
        raise UserError(str(error)) from error

    print(keywords.pop('name'), *(f'{name}={value}' for name, value in keywords.items()))
    classes = model.spec.num_classes
    if 'num_classes' not in keywords:
        classes = f'{classes} by default, where a training run would ask its data'
    print(f'clips {_by(clip_size)}, classes {classes}\n')
    table = [['part', *rows['total']]]
    for part, row in rows.items():
        table.append([part, *(f'{x:z,.{_DECIMALS.get(name, 3)}f}' for name, x in row.items())])
    print(_aligned(table))
    form = [f'{name}={getattr(model.spec, name)}' for name in PLAIN_FORM]
    print(
        _NOTES.format(
            form=', '.join(form),
            backend=jax.default_backend(),
            batch_size=batch_size,
            optimizer=config.train.optimizer,
        )
    )


def _print_references() -> int:
    """Prints published models; returns 1 if a count deviates from the table's figure."""
    heads = ('parameters', 'paper M', 'off', 'GMAC', 'XLA/2', 'paper G', 'off')
    table = [['model', 'clip', *heads]]
    mistakes = []
    for reference in published_models():
        model = plain_form(create_model(**reference.keywords))
        call = model_call(model, abstract_clip(model.spec, reference.clip))
        counted = {'parameters': count_parameters(call.params), **count_costs(call)}
        expected = {'parameters': reference.parameters, **reference.costs}
        for name, value in expected.items():
            if abs(counted[name] / value - 1) > TOLERANCES[name]:
                mistakes.append(
                    f'{reference.label}, {_by(reference.clip)}: {name} {counted[name]:,.10g} '
                    f'instead of {value:,.10g}'
                )
        convention = next(iter(reference.costs))
        table.append(
            [
                reference.label,
                _by(reference.clip),
                f'{counted["parameters"]:,}',
                *_beside(reference.published_parameters, counted['parameters'] / 1e6),
                f'{counted["GMAC"]:,.2f}',
                f'{counted["XLA/2"]:,.2f}',
                *_beside(reference.published_cost, counted[convention], convention),
            ]
        )
    print(_aligned(table))
    print('paper: as published; off: the count here, relative to the paper')
    for mistake in mistakes:
        print(f'Error: {mistake}', file=sys.stderr)
    return 1 if mistakes else 0


def _beside(published: float | None, counted: float, convention: str = '') -> tuple[str, str]:
    """A published number, and the difference of a count in percent of it."""
    if published is None:
        return '', ''
    return f'{published:g} {convention}'.rstrip(), f'{100 * (counted / published - 1):+z.1f} %'


def _by(sizes: tuple[int, ...]) -> str:
    return 'x'.join(map(str, sizes))


def _aligned(rows: list[list[str]]) -> str:
    """Aligns columns: the first to the left, all others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return '\n'.join(
        '  '.join(
            f'{cell:{">" if index else "<"}{width}}'
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def _parse_flags(argv: list[str]) -> list[str]:
    if any(arg.startswith('--config') for arg in argv):
        return command_line.parse_flags(argv)
    return terminal.parse_flags(argv)


if __name__ == '__main__':
    terminal.run(main, flags_parser=_parse_flags)
