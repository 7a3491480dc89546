"""Converts weights from one file format to another.

    python -m vivit_jax.convert --source=vivit_checkpoint --to=huggingface --output=vivit_hf
    python -m vivit_jax.convert --source=runs/mine --to=torch --output=mine.safetensors --verify
    python -m vivit_jax.convert --source=ViT-B_16.npz --to=orbax --output=start \\
        --model=vivit_fe --reinit=head num_classes=174 tubelet_size=4,16,16
    python -m vivit_jax.convert --source=runs/rgb --depth=runs/depth --to=orbax --output=both

The content of the source tells its format. `--model`, keywords of a model, `--frames` and
`--crop_size` describe another model to put the weights into: a ViT for images is inflated, learned
positions are resized. `--depth` joins two runs of one model, one on RGB and one on
depth, to a model that averages their scores. A report of what became of each parameter is printed,
and saved beside the output.
"""

if __name__ == '__main__':  # before the slow imports
    from vivit_jax.signals import end_on_ctrl_c

    end_on_ctrl_c()

import dataclasses
from pathlib import Path

import jax
from absl import flags

from vivit_jax import terminal
from vivit_jax.annotations.label_map import read_label_maps
from vivit_jax.config import load
from vivit_jax.convert import verify
from vivit_jax.errors import UserError
from vivit_jax.heads import by_head, head_names, map_heads, numbered_labels
from vivit_jax.model_card import ModelCard
from vivit_jax.models.registry import MODELS, create_model, model_keywords
from vivit_jax.models.variables import abstract_variables, init_variables
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.weights.copy_rules import TEMPORAL_ATTENTION_INITS
from vivit_jax.weights.huggingface import write_huggingface
from vivit_jax.weights.init_from import find_untrained_heads
from vivit_jax.weights.load import read_weights
from vivit_jax.weights.orbax import write_checkpoint
from vivit_jax.weights.report import Report
from vivit_jax.weights.streams import fuse_weights, start_variables
from vivit_jax.weights.torch_export import export_torch
from vivit_jax.weights.tubelets import TUBELET_INITS
from vivit_jax.weights.vivit_jax_npz import write_npz
from vivit_jax.weights.weights import Weights

_SOURCE = flags.DEFINE_string('source', None, 'File or folder with the weights.')
_TO = flags.DEFINE_enum('to', None, ['orbax', 'huggingface', 'torch', 'npz'], 'What to write.')
_OUTPUT = flags.DEFINE_string(
    'output', None, 'Folder for orbax and huggingface, file for torch (.safetensors) and npz.'
)
_DEPTH = flags.DEFINE_string(
    'depth', None, 'Weights of the same model for depth: the output sees RGB and depth.'
)
_MODEL = flags.DEFINE_string('model', None, 'Model to put the weights into; by default their own.')
_REINIT = flags.DEFINE_list('reinit', [], '"head": a new classifier, all zero.')
_TUBELET_INIT = flags.DEFINE_enum(
    'tubelet_init', TUBELET_INITS[0], TUBELET_INITS, 'How kernels of image ViTs become tubelets.'
)
_TEMPORAL_ATTENTION_INIT = flags.DEFINE_enum(
    'temporal_attention_init',
    TEMPORAL_ATTENTION_INITS[0],
    TEMPORAL_ATTENTION_INITS,
    'How the temporal attention of vivit_fsa starts from an image ViT.',
)
_FRAMES = flags.DEFINE_integer('frames', None, 'Frames of a clip.', lower_bound=1)
_CROP_SIZE = flags.DEFINE_integer('crop_size', None, "Pixels of a clip's sides.", lower_bound=1)
_VALUE_RANGE = flags.DEFINE_list(
    'value_range',
    None,
    'Values that pixels of 0 and 255 become, as in -1,1, if the source is wrong.',
)
_GRID = flags.DEFINE_list(
    'grid', None, 'Tokens t,h,w of the position table of an original ViViT, as in 8,10,12.'
)
_ALLOW_NON_FINITE = flags.DEFINE_bool(
    'allow_non_finite', False, 'Read weights although they hold NaN or Inf.'
)
_LABELS = flags.DEFINE_string(
    'labels', None, 'File with a class name per line; for several heads, "classes_{head}.txt".'
)
_VERIFY = flags.DEFINE_bool('verify', False, 'Compare source and output on a random clip.')

_WRITERS = {
    'orbax': write_checkpoint,
    # `write_huggingface` refuses all models that have running statistics.
    'huggingface': lambda card, params, folder, _: write_huggingface(card, params, folder),
    'torch': export_torch,
    'npz': write_npz,
}
_SUFFIXES = {'torch': '.safetensors', 'npz': '.npz'}

# The keywords that a model for video takes over from a model for images, unless they are given.
_INHERITED = {
    *('hidden_size', 'num_layers', 'num_heads', 'mlp_dim', 'pool', 'gelu', 'layer_norm_eps'),
    'pre_norm',
    *('stage_blocks', 'width', 'pixel_mean'),
}


def main(settings: list[str]) -> int:
    """Converts weights; returns 1 if `--verify` finds a difference."""
    output = _checked_output(Path(_OUTPUT.value), _TO.value)
    how = {
        'model': _MODEL.value,
        'grid': _grid(),
        'frames': _FRAMES.value,
        'crop_size': _CROP_SIZE.value,
        'allow_non_finite': _ALLOW_NON_FINITE.value,
    }
    weights = read_weights(_SOURCE.value, value_range=_value_range(), **how)
    if _DEPTH.value:
        weights = fuse_weights(weights, read_weights(_DEPTH.value, **how))
    print(f'Found {_describe(weights)}')
    try:
        card = _target_card(weights, settings)
        variables, report = _convert(weights, card)
    except ValueError as error:
        raise UserError(str(error)) from error
    print(report)
    if card.model != weights.card.model:
        print('Made', *(f'{name}={value}' for name, value in card.model.items()))
    if heads := find_untrained_heads(variables['params']):
        print(f'Untrained, all zero: {", ".join(heads)}')
    reference = verify.Reference(card, variables) if _VERIFY.value else None
    is_same = not (_REINIT.value or _DEPTH.value) and (card.model, card.preprocessing) == (
        weights.card.model,
        weights.card.preprocessing,
    )
    weights.params.clear()
    # Only the writer holds the parameters now, so that it can free each one after copying it.
    _WRITERS[_TO.value](card, variables.pop('params'), output, variables.pop('batch_stats'))
    report_file = output.with_name(f'{output.name}.report.txt')
    text = '\n'.join([f'{_SOURCE.value}: {weights.kind}', *weights.notes, str(report)])
    report_file.write_text(f'{text}\n', encoding='utf-8')
    print(f'Wrote {output} and {report_file}')
    if not reference:
        return 0
    agree = [reference.compare('source', Path(_SOURCE.value), **how)] if is_same else []
    agree.append(reference.compare('output', output, allow_non_finite=_ALLOW_NON_FINITE.value))
    return 0 if all(agree) else 1


def _checked_output(path: Path, form: str) -> Path:
    suffix = _SUFFIXES.get(form)
    if suffix and path.suffix != suffix:
        raise UserError(f'--output={path} must end in {suffix}, which is what --to={form} writes')
    if path.exists():
        raise UserError(f'--output={path} exists already: name another, or remove it')
    return path


def _grid() -> tuple[int, int, int] | None:
    if _GRID.value is None:
        return None
    try:
        return tuple(map(int, _GRID.value))
    except ValueError as error:
        raise UserError(f'--grid={",".join(_GRID.value)} must be numbers, as in 8,10,12') from error


def _value_range() -> tuple[float, float] | None:
    if _VALUE_RANGE.value is None:
        return None
    try:
        low, high = map(float, _VALUE_RANGE.value)
    except ValueError as error:
        given = ','.join(_VALUE_RANGE.value)
        raise UserError(f'--value_range={given} must be two numbers, as in -1,1') from error
    return low, high


def _describe(weights: Weights) -> str:
    card = weights.card
    count = sum(x.size for x in jax.tree.leaves(weights.params))
    classes = map_heads(len, card.label_names) if weights.has_head else 'no'
    text = (
        f'{weights.kind}: {card.model["name"]}, {count / 1e6:.2f} M parameters, '
        f'{"x".join(map(str, weights.grid))} tokens, {classes} classes, pixels in '
        f'{card.preprocessing.value_range}'
    )
    return text + (f'; not used: {", ".join(weights.unused)}' if weights.unused else '')


def _target_card(weights: Weights, settings: list[str]) -> ModelCard:
    """The card of the output: the card of the source, changed as the flags say."""
    source = weights.card
    name = _MODEL.value or source.model['name']
    keywords = load.model_keywords(load.model_config(name, *settings))
    spec = source.preprocessing
    becomes_video = weights.is_image_model and keywords.get('tokenizer', 'tubelet') == 'tubelet'
    if becomes_video:
        known = model_keywords(name)
        choices = MODELS[name].choices()
        inherited = {
            key: value
            for key, value in source.model.items()
            if key in known.keys() & _INHERITED and value in choices.get(key, (value,))
        }
        if 'tubelet_size' in known.keys() & source.model.keys():
            length = keywords.get('tubelet_size', known['tubelet_size'])[0]
            inherited['tubelet_size'] = (length, *source.model['tubelet_size'][1:])
        model = {'name': name, **inherited, **keywords}
        default = Preprocessing()
        spec = dataclasses.replace(
            spec, num_frames=default.num_frames, frame_stride=default.frame_stride
        )
    else:
        model = {**source.model, **keywords}
    if 'size' in keywords:  # the sizes come from the preset instead of from the source
        size = keywords['size']
        sizes = MODELS[name].preset(size)
        model = {k: value for k, value in model.items() if k not in sizes or k in keywords}
    crop_size = _CROP_SIZE.value or spec.crop_size
    spec = dataclasses.replace(
        spec,
        num_frames=_FRAMES.value or spec.num_frames,
        crop_size=crop_size,
        short_side=round(spec.short_side * crop_size / spec.crop_size),
    )
    label_names = source.label_names
    num_classes = keywords.get('num_classes', source.model.get('num_classes'))
    if not all(isinstance(count, int) for count in by_head(num_classes).values()):
        raise UserError(f'num_classes={num_classes} must be a whole number')
    if _REINIT.value and not (weights.has_head or _LABELS.value or 'num_classes' in keywords):
        raise UserError(
            'the source has no classifier: give num_classes=N or --labels for a new one'
        )
    if _LABELS.value:
        label_names = read_label_maps(_LABELS.value, head_names(num_classes))
        if map_heads(len, label_names) != num_classes and not _REINIT.value:
            raise UserError(
                f'--labels={_LABELS.value} has {map_heads(len, label_names)} classes, and the '
                f'weights have {num_classes}: give their names, or --reinit=head'
            )
    elif map_heads(len, label_names) != num_classes:
        label_names = numbered_labels(num_classes)
    model['num_classes'] = map_heads(len, label_names)
    return dataclasses.replace(source, model=model, preprocessing=spec, label_names=label_names)


def _convert(weights: Weights, card: ModelCard) -> tuple[dict, Report]:
    """The variables of the target, and a report of what became of each parameter."""
    model, spec = create_model(**card.model), card.preprocessing
    if card.model == weights.card.model and weights.has_head and not _REINIT.value:
        fresh = abstract_variables(model, spec.clip_shape)  # nothing will be new
    else:
        fresh = jax.jit(lambda: init_variables(jax.random.key(0), model, spec.clip_shape))()
    return start_variables(
        model,
        fresh,
        weights,
        clip_shape=spec.clip_shape,
        reinit=tuple(_REINIT.value),
        tubelet_init=_TUBELET_INIT.value,
        temporal_attention_init=_TEMPORAL_ATTENTION_INIT.value,
    )


if __name__ == '__main__':
    flags.mark_flags_as_required(['source', 'to', 'output'])
    terminal.run(main)
