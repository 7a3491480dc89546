"""Reads and writes folders of Hugging Face's ViViT (`VivitForVideoClassification`).

Needs neither torch nor transformers.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vivit_jax.errors import UserError
from vivit_jax.model_card import ModelCard
from vivit_jax.models.registry import model_keywords, specify
from vivit_jax.models.vivit.specification import Joint
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.weights.huggingface_config import (
    GELUS,
    MULTI_LABEL,
    is_multi_label,
    label_names,
)
from vivit_jax.weights.json_files import read_json
from vivit_jax.weights.renames import Renames, rename
from vivit_jax.weights.tensor_files import Tensors, open_tensors, save_tensors
from vivit_jax.weights.torch_layout import (
    CONV,
    INTO_HEADS,
    LINEAR,
    NORM,
    SAME,
    Rules,
    from_torch,
    module_rules,
    to_torch,
)
from vivit_jax.weights.weights import Weights, clip_grid

_OUR_BLOCK, _THEIR_BLOCK = r'Transformer/encoderblock_(\d+)', r'vivit.encoder.layer.\1'
_ATTENTION = f'{_OUR_BLOCK}/MultiHeadDotProductAttention_0'

_RULES: Rules = (
    ('cls', 'vivit.embeddings.cls_token', SAME),
    ('Transformer/posembed_input/pos_embedding', 'vivit.embeddings.position_embeddings', SAME),
    *module_rules(
        ('embedding', 'vivit.embeddings.patch_embeddings.projection', CONV),
        (f'{_OUR_BLOCK}/LayerNorm_0', f'{_THEIR_BLOCK}.layernorm_before', NORM),
        (f'{_ATTENTION}/(query|key|value)', rf'{_THEIR_BLOCK}.attention.attention.\2', INTO_HEADS),
        (f'{_ATTENTION}/out', f'{_THEIR_BLOCK}.attention.output.dense', LINEAR),
        (f'{_OUR_BLOCK}/LayerNorm_1', f'{_THEIR_BLOCK}.layernorm_after', NORM),
        (f'{_OUR_BLOCK}/MlpBlock_0/Dense_0', f'{_THEIR_BLOCK}.intermediate.dense', LINEAR),
        (f'{_OUR_BLOCK}/MlpBlock_0/Dense_1', f'{_THEIR_BLOCK}.output.dense', LINEAR),
        ('Transformer/encoder_norm', 'vivit.layernorm', NORM),
        ('output_projection', 'classifier', LINEAR),
    ),
)

# Transformers 5 has new names in memory, but still writes the older names.
_OLDER_NAMES: Renames = (
    (r'^vivit\.layers\.', 'vivit.encoder.layer.'),
    (r'\.attention\.q_proj\.', '.attention.attention.query.'),
    (r'\.attention\.k_proj\.', '.attention.attention.key.'),
    (r'\.attention\.v_proj\.', '.attention.attention.value.'),
    (r'\.attention\.o_proj\.', '.attention.output.dense.'),
    (r'\.mlp\.fc1\.', '.intermediate.dense.'),
    (r'\.mlp\.fc2\.', '.output.dense.'),
)
_POOLER = 'vivit.pooler.'  # unused: the classifier reads the features directly

# Keywords of `create_model` and the fields of config.json with the same meaning and default.
_FIELDS = {
    'hidden_size': 'hidden_size',
    'num_layers': 'num_hidden_layers',
    'num_heads': 'num_attention_heads',
    'mlp_dim': 'intermediate_size',
    'tubelet_size': 'tubelet_size',
    'layer_norm_eps': 'layer_norm_eps',
    'dropout_rate': 'hidden_dropout_prob',
    'attention_dropout_rate': 'attention_probs_dropout_prob',
}
# The field of config.json for the model card; transformers keeps it when it saves a fine-tuned
# model.
_CARD = 'vivit_jax'

_WEIGHTS = ('model.safetensors', 'model.safetensors.index.json', 'pytorch_model.bin')
_PROCESSORS = ('preprocessor_config.json', 'video_preprocessor_config.json')

_ACTIVATIONS = {'tanh': 'gelu_fast', 'exact': 'gelu', 'quick': 'quick_gelu'}
_RESAMPLING = {'bilinear': 2, 'bicubic': 3, 'area': 4}  # numbers of Pillow's filters


def matches(folder: Path) -> bool:
    """Whether a folder holds a Hugging Face ViViT."""
    config = folder / 'config.json'
    return config.is_file() and read_json(config).get('model_type') == 'vivit'


def read_huggingface(folder: Path, value_range: tuple[float, float] | None = None) -> Weights:
    """Reads a folder that `save_pretrained` or `write_huggingface` wrote.

    The preprocessing follows the folder's image processor exactly. The processor in
    `google/vivit-b-16x2-kinetics400` is wrong: its weights were trained on pixels in [-1, 1] from
    frames with a short side of 256, and it declares others.

    Args:
        folder: a folder with `config.json`, the weights and perhaps `preprocessor_config.json`.
        value_range: the values that pixels of 0 and 255 become, if the processor is wrong.

    Raises:
        UserError: the weights do not fit the configuration, or this package has no such model.
    """
    config = read_json(folder / 'config.json')
    if not config.get('qkv_bias', True) or config.get('hidden_act', 'gelu_fast') not in list(GELUS):
        raise UserError(
            f'{folder}/config.json: qkv_bias={config.get("qkv_bias")} and '
            f'hidden_act={config.get("hidden_act")!r} belong to another model: there must be '
            f'biases, and one of {", ".join(GELUS)}'
        )
    tensors, unused = _open(folder)
    head = [name for name in tensors if name.startswith('classifier.')]
    num_classes = len(tensors[head[0]]) if head else 1
    saved, notes = _saved_card(config, folder), []
    defaults = model_keywords('vivit_joint')
    model = {
        **({key: value for key, value in saved.model.items() if key != 'size'} if saved else {}),
        'name': 'vivit_joint',
        'num_classes': num_classes,
        **{ours: config.get(theirs, defaults[ours]) for ours, theirs in _FIELDS.items()},
        'gelu': GELUS[config.get('hidden_act', 'gelu_fast')],
    }
    try:
        usual = saved.preprocessing if saved else Preprocessing()
        spec = _preprocessing(folder, config, usual, value_range, notes)
    except (ValueError, TypeError) as error:
        raise UserError(f'{folder}: {error}') from error
    names = label_names(config, num_classes) if head else ('0',)
    card = ModelCard(
        model,
        spec,
        names,
        saved.typical_sec if saved else None,
        bool(head) and is_multi_label(config, default=bool(saved and saved.is_multi_label)),
    )
    try:
        card.check_layers(len(tensors))
    except (ValueError, TypeError) as error:
        raise UserError(f'{folder}/config.json: {error}') from error
    params = from_torch(tensors, card, lambda _: _RULES, folder, has_head=bool(head))['params']
    return Weights(
        'Hugging Face ViViT', card, params, clip_grid(card), unused, bool(head), notes=tuple(notes)
    )


def write_huggingface(card: ModelCard, params: Mapping, folder: Path):
    """Writes a folder for `VivitForVideoClassification.from_pretrained`.

    The folder's processor config follows `card.preprocessing`, for both of transformers'
    processors, `VivitImageProcessor` and `VivitVideoProcessor`.

    Raises:
        UserError: `VivitForVideoClassification` has no such model, or a file cannot be written.
    """
    model, spec = specify(**card.model), card.preprocessing
    needed = {
        'pool': 'cls',
        'position': 'learned',
        'tokenizer': 'tubelet',
        'pre_norm': False,
        'knn_ratio': 1.0,
        'modality': 'rgb',
    }
    if isinstance(model, Joint):
        values = {key: getattr(model, key) for key in needed}
        wrong = [f'{key}={value}' for key, value in values.items() if value != needed[key]]
    else:
        wrong = [card.model['name']]
    if isinstance(card.label_names, Mapping):
        wrong.append(f'heads {", ".join(card.label_names)}')
    if spec.color_order != 'rgb':
        wrong.append(f'color_order={spec.color_order}')
    if wrong:
        raise UserError(
            "Hugging Face's ViViT is vivit_joint with tubelets, class token, learned positions and "
            f'one classifier, and has no {", ".join(wrong)}: --to=torch writes any model'
        )
    id2label = dict(enumerate(card.label_names))
    config = {
        'architectures': ['VivitForVideoClassification'],
        'model_type': 'vivit',
        **{theirs: getattr(model, ours) for ours, theirs in _FIELDS.items()},
        'hidden_act': _ACTIVATIONS[model.gelu],
        'num_channels': 3,
        'num_frames': spec.clip_shape[0],
        'image_size': spec.crop_size,
        'qkv_bias': True,
        'id2label': id2label,
        'label2id': {label: index for index, label in id2label.items()},
        **({'problem_type': MULTI_LABEL} if card.is_multi_label else {}),
        _CARD: card.to_json(),
    }
    arrays = to_torch(params, _RULES)
    del params  # frees, array by array, what only the caller's call holds
    save_tensors(folder / 'model.safetensors', arrays, {'format': 'pt'})
    for name, content in (
        ('config.json', config),
        (_PROCESSORS[0], _processor_config(spec)),
    ):
        text = json.dumps(content, indent=2, ensure_ascii=False) + '\n'
        (folder / name).write_text(text, encoding='utf-8')


def _open(folder: Path) -> tuple[Tensors, tuple[str, ...]]:
    """Opens the tensors under the names in `_RULES`; also returns the names of unused tensors."""
    found = [folder / name for name in _WEIGHTS if (folder / name).exists()]
    if not found:
        raise UserError(f'{folder} has a config.json, but none of {", ".join(_WEIGHTS)}')
    tensors = open_tensors(found[0])
    has_prefix = any(name.startswith('vivit.') for name in tensors)
    names, unused = {}, []
    for name in tensors:
        theirs = name if has_prefix or name.startswith('classifier.') else f'vivit.{name}'
        theirs = rename(theirs, _OLDER_NAMES)
        if theirs.startswith(_POOLER):
            unused.append(name)
        else:
            names[theirs] = name
    loaders = {theirs: lambda name=name: tensors[name] for theirs, name in names.items()}
    return Tensors(loaders), tuple(unused)


def _saved_card(config: Mapping, folder: Path) -> ModelCard | None:
    """The card that `write_huggingface` put into the folder's config, or None."""
    if _CARD not in config:
        return None
    try:
        return ModelCard.from_json(config[_CARD])
    except ValueError as error:
        raise UserError(
            f'{folder}/config.json: the entry {_CARD!r} is damaged, repair or remove it: {error}'
        ) from error


def _preprocessing(
    folder: Path,
    config: Mapping,
    usual: Preprocessing,
    value_range: tuple[float, float] | None,
    notes: list[str],
) -> Preprocessing:
    """The preprocessing of the image processor; fields that it does not tell are as in `usual`."""
    size = config.get('image_size', 224)
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) > 1:
        raise ValueError(f'image_size={size} is not square')
    crop_size = sides.pop()
    spec = dataclasses.replace(
        usual,
        num_frames=config.get('num_frames', 32) // usual.num_units,
        crop_size=crop_size,
        short_side=round(usual.short_side * crop_size / usual.crop_size),
    )
    processors = [read_json(folder / name) for name in _PROCESSORS if (folder / name).exists()]
    if processors:
        spec = _resizing(processors[0], spec, notes)
    if processors and value_range is None:
        ranges = {_value_range(processor, usual.value_range) for processor in processors}
        if len(ranges) > 1:
            raise ValueError(
                f'{" and ".join(_PROCESSORS)} make pixels of different ranges, {sorted(ranges)}: '
                'tell with --value_range which one the weights expect'
            )
        value_range = ranges.pop()
        if value_range != usual.value_range:
            (low, high), (right_low, right_high) = value_range, usual.value_range
            origin = 'weights that it began with' if _CARD in config else 'published weights'
            notes.append(
                f'its processor makes pixels from {low:g} to {high:g}, but the {origin} were '
                f'trained on {right_low:g} to {right_high:g}: unless these are of other pixels, '
                f'convert them with --value_range={right_low:g},{right_high:g}'
            )
    return dataclasses.replace(spec, value_range=value_range or usual.value_range)


def _resizing(processor: Mapping, spec: Preprocessing, notes: list[str]) -> Preprocessing:
    """Sets the short side and the filter of a processor, or adds a note why they stay."""
    size = processor.get('size') or {'shortest_edge': 256}
    short_side = size.get('shortest_edge') if isinstance(size, Mapping) else size
    does_resize = processor.get('do_resize', True) and isinstance(short_side, int)
    if does_resize and short_side >= spec.crop_size:
        spec = dataclasses.replace(spec, short_side=short_side)
    else:
        notes.append(
            f'its processor resizes otherwise (do_resize={processor.get("do_resize", True)}, '
            f'size={size}): here the short side of frames becomes {spec.short_side}'
        )
    resample = processor.get('resample', _RESAMPLING['bilinear'])
    for name, number in _RESAMPLING.items():
        if resample == number:
            return dataclasses.replace(spec, interpolation=name)
    notes.append(f'its processor has resample={resample}, here it is {spec.interpolation}')
    return spec


def _value_range(processor: Mapping, usual: tuple[float, float]) -> tuple[float, float]:
    """The values that a processor makes of pixels of 0 and 255; exactly `usual` if close to it."""
    values = np.array([0.0, 255.0])
    if processor.get('do_rescale', True):
        values = values * processor.get('rescale_factor', 1 / 127.5) - processor.get('offset', True)
    if processor.get('do_normalize', True):
        mean, std = (processor.get(name) for name in ('image_mean', 'image_std'))
        mean, std = ({0.5} if x is None else set(np.ravel(x).tolist()) for x in (mean, std))
        if len(mean) > 1 or len(std) > 1 or 0 in std:
            raise ValueError(
                f'image_mean={sorted(mean)} and image_std={sorted(std)} of the image processor '
                'differ between colours, or are zero, which is not supported: fold them into the '
                'weights, or give --value_range where the file is wrong'
            )
        values = (values - mean.pop()) / std.pop()
    # 1/127.5 has no exact form in floating point.
    low, high = usual if np.allclose(values, usual, 0, 1e-6) else np.round(values, 6).tolist()
    return low, high


def _processor_config(spec: Preprocessing) -> dict:
    """The content of preprocessor_config.json.

    The processor first rescales to [-1, 1], because `VivitVideoProcessor` can do nothing else.
    Where the range is another, mean and standard deviation do the rest.
    """
    low, high = spec.value_range
    std = 2 / (high - low)
    return {
        'image_processor_type': 'VivitImageProcessor',
        'video_processor_type': 'VivitVideoProcessor',
        'do_resize': True,
        'size': {'shortest_edge': spec.short_side},
        'resample': _RESAMPLING[spec.interpolation],
        'do_center_crop': True,
        'crop_size': {'height': spec.crop_size, 'width': spec.crop_size},
        'do_rescale': True,
        'rescale_factor': 1 / 127.5,
        'offset': True,
        'do_normalize': (low, high) != (-1.0, 1.0),
        'image_mean': [-1 - low * std] * 3,
        'image_std': [std] * 3,
    }
