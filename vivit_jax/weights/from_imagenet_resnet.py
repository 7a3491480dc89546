"""Reads ResNets for images, of 50 and more layers, from the files of PyTorch's libraries.

torchvision and timm use the same names; Hugging Face's are changed to these first.
"""

import re
from collections.abc import Collection
from pathlib import Path

import numpy as np

from vivit_jax.errors import UserError
from vivit_jax.model_card import ModelCard
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.weights.huggingface_config import colours, is_multi_label, label_names
from vivit_jax.weights.json_files import read_json
from vivit_jax.weights.misfits import count_layers
from vivit_jax.weights.tensor_files import Tensors
from vivit_jax.weights.torch_layout import (
    BATCH_NORM,
    LINEAR,
    Rules,
    Transform,
    from_torch,
    module_rules,
)
from vivit_jax.weights.weights import Weights, clip_grid

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# A kernel [1 h w c d] of ours is [d c h w] in PyTorch.
_IMAGE_CONV = (
    (
        'kernel',
        'weight',
        Transform(
            lambda x: x[0].transpose(3, 2, 0, 1), lambda x, shape: x.transpose(2, 3, 1, 0)[None]
        ),
    ),
)
_RULES: Rules = module_rules(
    ('conv1', 'conv1', _IMAGE_CONV),
    ('norm1', 'bn1', BATCH_NORM),
    *(
        (rf'conv{stage + 1}_(\d+)/{ours}', rf'layer{stage}.\1.{theirs}', kind)
        for stage in (1, 2, 3, 4)
        for ours, theirs, kind in (
            (r'conv(\d)', r'conv\2', _IMAGE_CONV),
            (r'norm(\d)', r'bn\2', BATCH_NORM),
            ('shortcut', 'downsample.0', _IMAGE_CONV),
            ('shortcut_norm', 'downsample.1', BATCH_NORM),
        )
    ),
    ('output_projection', 'fc', LINEAR),
)

# Hugging Face's names, which count from zero, in the form of torchvision's.
_HUGGINGFACE = (
    (r'(?:resnet\.)?embedder\.embedder\.convolution\.(.+)', r'conv1.\1'),
    (r'(?:resnet\.)?embedder\.embedder\.normalization\.(.+)', r'bn1.\1'),
    (
        r'(?:resnet\.)?encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.(\d+)\.convolution\.(.+)',
        r'layer<\1>.\2.conv<\3>.\4',
    ),
    (
        r'(?:resnet\.)?encoder\.stages\.(\d+)\.layers\.(\d+)\.layer\.(\d+)\.normalization\.(.+)',
        r'layer<\1>.\2.bn<\3>.\4',
    ),
    (
        r'(?:resnet\.)?encoder\.stages\.(\d+)\.layers\.(\d+)\.shortcut\.convolution\.(.+)',
        r'layer<\1>.\2.downsample.0.\3',
    ),
    (
        r'(?:resnet\.)?encoder\.stages\.(\d+)\.layers\.(\d+)\.shortcut\.normalization\.(.+)',
        r'layer<\1>.\2.downsample.1.\3',
    ),
    (r'classifier\.1\.(.+)', r'fc.\1'),
)


def matches(names: Collection[str]) -> bool:
    """Whether the names of arrays belong to a ResNet for images."""
    renamed = {_rename(name) for name in names}
    return any(re.fullmatch(r'conv1\.(\d+\.)?weight', name) for name in renamed) and (
        'layer1.0.conv1.weight' in renamed
    )


def read_image_resnet(tensors: Tensors, path: Path) -> Weights:
    """Reads an image ResNet as a `v4d` without blocks, for clips of one frame in [0, 1].

    The standard deviations of the colours are folded into the first kernel. The means are the
    keyword `pixel_mean`: the network pads with zeros after it has subtracted them, which no bias
    could equal at the borders. Beside the file, `config.json` and `preprocessor_config.json` tell
    means, deviations and classes; without them they are those of ImageNet.

    Args:
        tensors: the tensors of the file.
        path: the path of the file.

    Raises:
        UserError: arrays are missing, unknown or misshapen, and the message lists all of them; or
            the network computes something else.
    """
    arrays = {_rename(name): name for name in tensors if not name.endswith('num_batches_tracked')}
    config = {}
    for name in ('preprocessor_config.json', 'config.json'):
        if path.with_name(name).exists():
            config |= read_json(path.with_name(name))
    if config.get('downsample_in_bottleneck'):
        raise UserError(
            f'{path}: config.json says downsample_in_bottleneck, so that the network halves images '
            'in its 1x1 convolutions: take a ResNet of version 1.5, which halves in the 3x3 ones'
        )
    if 'layer1.0.conv3.weight' not in arrays:
        raise UserError(
            f'{path} looks like a ResNet of basic blocks, such as ResNet-18 or 34: take one of '
            'bottlenecks, such as ResNet-50'
        )
    arrays = {ours: tensors[theirs] for ours, theirs in arrays.items()}
    found_colours = colours(config)
    mean, std = found_colours or (_IMAGENET_MEAN, _IMAGENET_STD)
    has_head = 'fc.weight' in arrays
    try:
        depths = [max(1, count_layers(rf'layer{stage}\.(\d+)\.', arrays)) for stage in (1, 2, 3, 4)]
    except ValueError as error:
        raise UserError(f'{path} looks like a ResNet, but: {error}') from error
    num_classes = len(arrays['fc.weight']) if has_head else 1
    model = {
        'name': 'v4d',
        'blocks': (),
        'stage_blocks': tuple(depths),
        'temporal_kernels': (1, 1, 1, 1),
        'width': len(arrays.get('conv1.weight', range(64))),
        'pixel_mean': mean,
        'num_classes': num_classes,
    }
    spec = Preprocessing(
        num_frames=1, frame_stride=1, short_side=256, crop_size=224, value_range=(0.0, 1.0)
    )
    of_head = config if has_head else {}
    names = label_names(of_head, num_classes)
    card = ModelCard(model, spec, names, is_multi_label=is_multi_label(of_head))
    variables = from_torch(arrays, card, lambda _: _RULES, path, has_head=has_head)
    variables['params']['conv1']['kernel'] /= np.asarray(std, np.float32)[:, None]
    notes = (f'no means of the colours beside the file: {mean} over {std} assumed',)
    return Weights(
        kind='image ResNet',
        card=card,
        grid=clip_grid(card),
        has_head=has_head,
        notes=() if found_colours else notes,
        **variables,
    )


def _rename(name: str) -> str:
    """The name of an array in torchvision."""
    for pattern, replacement in _HUGGINGFACE:
        if match := re.fullmatch(pattern, name):
            renamed = match.expand(replacement)
            return re.sub(r'<(\d+)>', lambda match: str(int(match[1]) + 1), renamed)
    return name
