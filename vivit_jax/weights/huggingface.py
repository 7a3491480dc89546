"""Folders of Hugging Face's ViViT (`VivitForVideoClassification`), in and out.

Neither torch nor transformers is needed.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from vivit_jax.data.preprocessing import Preprocessing
from vivit_jax.errors import UserError
from vivit_jax.heads import LabelNames, numbered_labels
from vivit_jax.model_card import ModelCard
from vivit_jax.models.registry import create_model
from vivit_jax.models.vivit import Joint
from vivit_jax.weights.files import Tensors, open_tensors, save_tensors
from vivit_jax.weights.source import Weights, clip_grid
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

_OUR_BLOCK, _THEIR_BLOCK = r'Transformer/encoderblock_(\d+)', r'vivit.encoder.layer.\1'
_ATTENTION = f'{_OUR_BLOCK}/MultiHeadDotProductAttention_0'

_RULES: Rules = (
    ('cls', 'vivit.embeddings.cls_token', SAME),
    (
        'Transformer/posembed_input/pos_embedding',
        'vivit.embeddings.position_embeddings',
        SAME,
    ),
    *module_rules(
        ('embedding', 'vivit.embeddings.patch_embeddings.projection', CONV),
        (f'{_OUR_BLOCK}/LayerNorm_0', f'{_THEIR_BLOCK}.layernorm_before', NORM),
        (
            f'{_ATTENTION}/(query|key|value)',
            rf'{_THEIR_BLOCK}.attention.attention.\2',
            INTO_HEADS,
        ),
        (f'{_ATTENTION}/out', f'{_THEIR_BLOCK}.attention.output.dense', LINEAR),
        (f'{_OUR_BLOCK}/LayerNorm_1', f'{_THEIR_BLOCK}.layernorm_after', NORM),
        (f'{_OUR_BLOCK}/MlpBlock_0/Dense_0', f'{_THEIR_BLOCK}.intermediate.dense', LINEAR),
        (f'{_OUR_BLOCK}/MlpBlock_0/Dense_1', f'{_THEIR_BLOCK}.output.dense', LINEAR),
        ('Transformer/encoder_norm', 'vivit.layernorm', NORM),
        ('output_projection', 'classifier', LINEAR),
    ),
)

# Names of transformers 5 in memory, and the older ones, which it still writes.
_IN_MEMORY = (
    (r'^vivit\.layers\.', 'vivit.encoder.layer.'),
    (r'\.attention\.q_proj\.', '.attention.attention.query.'),
    (r'\.attention\.k_proj\.', '.attention.attention.key.'),
    (r'\.attention\.v_proj\.', '.attention.attention.value.'),
    (r'\.attention\.o_proj\.', '.attention.output.dense.'),
    (r'\.mlp\.fc1\.', '.intermediate.dense.'),
    (r'\.mlp\.fc2\.', '.output.dense.'),
)
_POOLER = 'vivit.pooler.'  # not between features and classifier

_WEIGHTS = ('model.safetensors', 'model.safetensors.index.json', 'pytorch_model.bin')

# By `hidden_act`; all but 'gelu' are the approximation by a hyperbolic tangent.
_GELUS = {'gelu_fast': 'tanh', 'gelu_new': 'tanh', 'gelu_pytorch_tanh': 'tanh', 'gelu': 'exact'}
_RESAMPLING = {'bilinear': 2, 'bicubic': 3, 'area': 4}  # numbers of Pillow's filters


def matches(folder: Path) -> bool:
    """Whether a folder holds a ViViT of Hugging Face."""
    config = folder / 'config.json'
    return config.is_file() and _read_json(config).get('model_type') == 'vivit'


def read_huggingface(folder: Path, value_range: tuple[float, float] | None = None) -> Weights:
    """Reads a folder that `save_pretrained` or `write_huggingface` wrote.

    The preprocessing is that of its image processor, exactly as it computes. Beware of that in
    `google/vivit-b-16x2-kinetics400`: it declares other pixels than the weights were trained with,
    which were in [-1, 1], from frames with a short side of 256.

    Args:
        folder: with `config.json`, the weights and perhaps `preprocessor_config.json`.
        value_range: what the pixel values 0 and 255 become, where the processor is wrong.

    Raises:
        UserError: the weights are not those of the configuration, or it cannot be represented.
    """
    config = _read_json(folder / 'config.json')
    if not config.get('qkv_bias', True) or config.get('hidden_act', 'gelu_fast') not in _GELUS:
        raise UserError(
            f'{folder}/config.json: qkv_bias={config.get("qkv_bias")} and '
            f'hidden_act={config.get("hidden_act")!r} are those of another model: there must be '
            f'biases, and one of {", ".join(_GELUS)}'
        )
    tensors = _open(folder)
    has_head = 'classifier.weight' in tensors
    num_classes = len(tensors['classifier.bias']) if has_head else 1
    try:
        card = ModelCard(
            {
                'name': 'vivit_joint',
                'num_classes': num_classes,
                'hidden_size': config.get('hidden_size', 768),
                'num_layers': config.get('num_hidden_layers', 12),
                'num_heads': config.get('num_attention_heads', 12),
                'mlp_dim': config.get('intermediate_size', 3072),
                'tubelet_size': tuple(config.get('tubelet_size', (2, 16, 16))),
                'gelu': _GELUS[config.get('hidden_act', 'gelu_fast')],
                'layer_norm_eps': config.get('layer_norm_eps', 1e-6),
            },
            _preprocessing(folder, config, value_range),
            _label_names(config, num_classes),
        )
        params = from_torch(tensors, card, _RULES, folder, has_head=has_head)
    except ValueError as error:
        raise UserError(f'{folder}: {error}') from error
    kind = 'Hugging Face ViViT'
    if card.preprocessing.value_range != (-1.0, 1.0):
        low, high = card.preprocessing.value_range
        kind += (
            f'; its processor makes pixels from {low:g} to {high:g}. The published weights were '
            'trained on -1 to 1: convert them with --value_range=-1,1'
        )
    return Weights(kind, card, params, clip_grid(card), has_head=has_head)


def write_huggingface(card: ModelCard, params: Mapping, folder: Path):
    """Writes a folder for `VivitForVideoClassification.from_pretrained`.

    Its image processor makes the pixels of `card.preprocessing`, with either of the processors that
    transformers has.

    Raises:
        UserError: `VivitForVideoClassification` has no such model, or it cannot be written.
    """
    model, spec = create_model(**card.model), card.preprocessing
    needed = {'pool': 'cls', 'position': 'learned', 'tokenizer': 'tubelet'}
    wrong = [f'{key}={getattr(model, key)}' for key in needed if getattr(model, key) != needed[key]]
    if not isinstance(model, Joint):
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
        'hidden_size': model.hidden_size,
        'num_hidden_layers': model.num_layers,
        'num_attention_heads': model.num_heads,
        'intermediate_size': model.mlp_dim,
        'tubelet_size': list(model.tubelet_size),
        'hidden_act': 'gelu_fast' if model.gelu == 'tanh' else 'gelu',
        'layer_norm_eps': model.layer_norm_eps,
        'num_channels': 3,
        'num_frames': spec.num_frames,
        'image_size': spec.crop_size,
        'hidden_dropout_prob': model.dropout_rate,
        'attention_probs_dropout_prob': model.attention_dropout_rate,
        'qkv_bias': True,
        'id2label': id2label,
        'label2id': {label: index for index, label in id2label.items()},
        # What the other fields have no place for; kept through a fine-tuning there.
        'vivit_jax': card.to_json(),
    }
    arrays = to_torch(params, _RULES)
    save_tensors(folder / 'model.safetensors', arrays, {'format': 'pt'})
    for name, content in (
        ('config.json', config),
        ('preprocessor_config.json', _processor_config(spec)),
    ):
        text = json.dumps(content, indent=2, ensure_ascii=False) + '\n'
        (folder / name).write_text(text, encoding='utf-8')


def _open(folder: Path) -> Tensors:
    """The tensors under the names that files have, all with their prefix."""
    found = [folder / name for name in _WEIGHTS if (folder / name).exists()]
    if not found:
        raise UserError(f'{folder} has a config.json, but none of {", ".join(_WEIGHTS)}')
    tensors = open_tensors(found[0])
    has_prefix = any(name.startswith('vivit.') for name in tensors)
    names = {}
    for name in tensors:
        theirs = name if has_prefix or name.startswith('classifier.') else f'vivit.{name}'
        for pattern, replacement in _IN_MEMORY:
            theirs = re.sub(pattern, replacement, theirs)
        if not theirs.startswith(_POOLER):
            names[theirs] = name
    return Tensors({theirs: lambda name=name: tensors[name] for theirs, name in names.items()})


def _label_names(config: Mapping, num_classes: int) -> LabelNames:
    names = config.get('id2label', {})
    labels = tuple(names.get(number) for number in numbered_labels(num_classes))
    return numbered_labels(num_classes) if None in labels else labels


def _preprocessing(
    folder: Path, config: Mapping, value_range: tuple[float, float] | None
) -> Preprocessing:
    """That of the image processor; what it has no field for is as in our card, or as usual."""
    usual = config.get('vivit_jax', {}).get('preprocessing', {})
    size = config.get('image_size', 224)
    sides = {size} if isinstance(size, int) else set(size)
    if len(sides) > 1:
        raise ValueError(f'image_size={size} is not square')
    crop_size = sides.pop()
    found = {'num_frames': config.get('num_frames', 32), 'crop_size': crop_size}
    found['short_side'] = round(crop_size * 256 / 224)
    path = folder / 'preprocessor_config.json'
    if path.exists():
        processor = _read_json(path)
        short_side = processor.get('size', {}).get('shortest_edge')
        if short_side and short_side >= crop_size:
            found['short_side'] = short_side
        filters = {number: name for name, number in _RESAMPLING.items()}
        found['interpolation'] = filters.get(processor.get('resample'), 'bilinear')
        if value_range is None:
            found['value_range'] = _value_range(processor)
    if value_range is not None:
        found['value_range'] = value_range
    return Preprocessing(**{**usual, **found})


def _value_range(processor: Mapping) -> tuple[float, float]:
    """What a `VivitImageProcessor` makes of the pixel values 0 and 255."""
    values = np.array([0.0, 255.0])
    if processor.get('do_rescale', True):
        values = values * processor.get('rescale_factor', 1 / 127.5) - processor.get('offset', True)
    if processor.get('do_normalize', True):
        mean, std = (
            set(np.ravel(processor.get(name, 0.5)).tolist()) for name in ('image_mean', 'image_std')
        )
        if len(mean) > 1 or len(std) > 1:
            raise ValueError(
                f'image_mean={sorted(mean)} and image_std={sorted(std)} of '
                'preprocessor_config.json differ between colours, which is not supported: fold '
                'them into the weights, or give --value_range where the file is wrong'
            )
        values = (values - mean.pop()) / std.pop()
    low, high = np.round(values, 6).tolist()  # 1/127.5 has no exact form
    return low, high


def _processor_config(spec: Preprocessing) -> dict:
    """The processor rescales to [-1, 1]; its newer form for videos knows nothing else."""
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


def _read_json(path: Path) -> dict:
    try:
        return dict(json.loads(path.read_text('utf-8')))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f'{path} cannot be read as JSON: {error}') from error
