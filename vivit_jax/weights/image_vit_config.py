"""Reads `config.json` and `preprocessor_config.json` beside an image ViT of a PyTorch library.

timm tells the architecture by name; what its code then takes gets Hugging Face's names here.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from vivit_jax.weights.huggingface_config import GELUS
from vivit_jax.weights.json_files import read_json

# What timm's code tells of a model, by architecture and tag of the weights. Of the patterns that
# match, the first one that tells a field counts.
_TIMM = (
    (r'vit_base_patch16_gap_.+', {'num_attention_heads': 16}),
    (r'(vit|deit3)_(so400m|huge|giant|giantopt|gigantic)_.+', {'num_attention_heads': 16}),
    (r'vit_.+_clip_quickgelu_.+', {'hidden_act': 'quick_gelu'}),
    # Weights that were trained with the quick GELU; timm also runs them with the exact one.
    (r'vit_.+_clip_.+\.(openai|metaclip_(400m|2pt5b)|dfn5b)', {'hidden_act': 'quick_gelu'}),
    (r'vit_base_patch32_clip_224\.laion400m_e32', {'hidden_act': 'quick_gelu'}),
    (r'vit_large_patch14_clip_224\.dfn2b', {'hidden_act': 'quick_gelu'}),
    (r'vit_huge_patch14_clip_224\.metaclip2_worldwide', {'hidden_act': 'quick_gelu'}),
    (r'vit_(base_patch32|(so400m|giantopt)_patch16)_siglip_.+', {'hidden_act': 'gelu_tanh'}),
    (r'vit_large_patch16_siglip_(gap_)?512\..*', {'hidden_act': 'gelu_tanh'}),
    (r'vit_.+_clip_.+', {'layer_norm_eps': 1e-5}),
    (r'.+', {'hidden_act': 'gelu', 'layer_norm_eps': 1e-6}),
)
_TIMM_HEAD_WIDTH = 64  # of the others

# The architectures of timm's class VisionTransformer, which the table above describes. Some others,
# such as the Perception Encoder, have the same tensors and also rotate queries and keys.
_TIMM_ARCHITECTURES = r'(vit|deit3?|flexivit)_(?!pe_|.*rope).*'

# The model types of Hugging Face that are plain ViTs; others may have the same tensors.
_HUGGING_FACE_MODELS = (
    *('vit', 'vit_mae', 'vit_msn', 'ijepa', 'deit', 'dinov2'),
    *('clip', 'clip_vision_model', 'siglip', 'siglip_vision_model'),
)
_HUGGING_FACE_HEADS = 12  # the default of all its ViTs; a config.json may leave defaults out


def read_config(path: Path, width: int) -> dict:
    """The fields of the configuration beside a file, under the names of Hugging Face's ViTs.

    Args:
        path: the file of the weights.
        width: the width of the tokens.

    Raises:
        UserError: a file cannot be read as JSON.
    """
    config = {}
    for name in ('preprocessor_config.json', 'config.json'):
        if path.with_name(name).exists():
            config |= read_json(path.with_name(name))
    if isinstance(config.get('vision_config'), Mapping):  # of a model of images and texts
        config |= config['vision_config']
    if 'model_type' in config:
        config.setdefault('num_attention_heads', _HUGGING_FACE_HEADS)
    if isinstance(config.get('architecture'), str):
        config = {**_timm_fields(config, width), **config}
    return config


def find_other_settings(config: Mapping, has_class_token: bool) -> list[str]:
    """A line for each setting of a configuration with which a model computes something else."""
    found = []
    architecture, model_type = config.get('architecture'), config.get('model_type')
    if architecture:
        if not re.fullmatch(_TIMM_ARCHITECTURES, architecture):
            found.append(f'config.json: architecture={architecture!r} is no plain ViT of timm')
    elif model_type and model_type not in _HUGGING_FACE_MODELS:
        found.append(f'config.json: model_type={model_type!r} is no plain ViT')
    if config.get('hidden_act', 'gelu') not in list(GELUS):
        found.append(f'config.json: hidden_act={config["hidden_act"]!r} is no GELU')
    pool = 'token' if has_class_token else 'avg'
    if config.get('global_pool', pool) not in (pool, 'map'):
        tokens = 'the patches, without the class token' if has_class_token else 'other tokens'
        found.append(f'config.json: global_pool={config["global_pool"]!r} pools {tokens}')
    return found


def _timm_fields(config: Mapping, width: int) -> dict:
    """What timm's code and a configuration of timm tell, under the names of Hugging Face."""
    pretrained = config.get('pretrained_cfg') or {}
    arguments = config.get('model_args') or {}
    name = f'{config["architecture"]}.{pretrained.get("tag", "")}'
    fields = {
        'image_size': arguments.get('img_size') or pretrained.get('input_size', ())[1:],
        'num_attention_heads': width // _TIMM_HEAD_WIDTH,
    }
    for pattern, values in reversed(_TIMM):
        if re.fullmatch(pattern, name):
            fields |= values
    told = {
        'num_attention_heads': arguments.get('num_heads'),
        'hidden_act': arguments.get('act_layer'),
    }
    return fields | {name: value for name, value in told.items() if value is not None}
