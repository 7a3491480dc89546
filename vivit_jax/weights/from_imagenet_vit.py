"""Reads Vision Transformers for images from the files of other libraries.

These are the `.npz` of vision_transformer (AugReg) and big_vision, and the PyTorch files of timm
and Hugging Face.
"""

import math
import re
from collections.abc import Collection
from pathlib import Path

import flax.traverse_util
import numpy as np

from vivit_jax.errors import UserError
from vivit_jax.layers.keywords import SIZES
from vivit_jax.model_card import ModelCard
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.weights.huggingface_config import GELUS, colours, label_names
from vivit_jax.weights.imagenet_layouts import LAYOUTS, TABLE, VARIANTS, Layout, unstack
from vivit_jax.weights.json_files import read_json
from vivit_jax.weights.misfits import count_layers, find_misfits
from vivit_jax.weights.tensor_files import Tensors
from vivit_jax.weights.weights import Weights

# The arrays whose shapes tell the sizes of the model, and the names of their axes.
_KERNEL = 'embedding/kernel'
_QUERY = 'Transformer/encoderblock_0/MultiHeadDotProductAttention_0/query/kernel'
_DENSE = 'Transformer/encoderblock_0/MlpBlock_0/Dense_0/kernel'
_AXES = {
    _KERNEL: ('patch', 'patch', 'channels', 'width'),
    _QUERY: ('width', 'heads', 'width of a head'),
    _DENSE: ('width', 'hidden width'),
    TABLE: ('1', 'places', 'width'),
}

_HEADS = {size['hidden_size']: size['num_heads'] for size in SIZES.values()}  # by width
_USUAL_SIDE = 224  # pixels of an image's side, if a file does not tell


def matches(names: Collection[str]) -> bool:
    """Whether the names of arrays belong to an image ViT in a known layout."""
    return _recognize(names) is not None


def read_image_vit(tensors: Tensors, path: Path) -> Weights:
    """Reads an image ViT as a `vivit_joint` for clips of one frame.

    Beside a PyTorch file a `config.json` tells heads, GELU, epsilon and classes, and it or
    `preprocessor_config.json` tells the range of the pixels. Without them, the number of heads is
    the usual one for the width, and the rest are the library's defaults.

    Position tables must be squares. If a class token has no row in the table, it gets a row of
    zeros. Files of big_vision do not hold its fixed sines and cosines; these are computed, for
    images of 224 pixels. A classifier is left out if it follows attention pooling or a hidden
    layer, or if it belongs to a model of images and texts.

    Args:
        tensors: the tensors of the file.
        path: the path of the file.

    Raises:
        UserError: arrays are missing, unknown or misshapen, or the configuration describes a model
            that computes something else. The message lists every problem, or, if the sizes of the
            model cannot be found, every problem that prevents finding them.
    """
    recognized = _recognize(tensors)
    if recognized is None:
        raise UserError(f'{path} is no image ViT: it holds {", ".join(list(tensors)[:5])}, ...')
    layout, prefix, sign = recognized
    config, heads = {}, 0
    if layout.has_config:
        for name in ('preprocessor_config.json', 'config.json'):
            if path.with_name(name).exists():
                config |= read_json(path.with_name(name))
        heads = _num_heads(config, tensors[sign].shape[-1], path)
    notes = []
    if layout.has_config and not config:
        notes.append(f'no config.json: {heads} heads and pixels in [-1, 1] assumed')
    params, origins, unused, problems = _rename(unstack(tensors, prefix), layout, prefix, heads)
    if _has_other_head(unused, layout, prefix):
        classifier = [name for name in params if name.startswith('output_projection')]
        unused += [origins[name] for name in classifier]
        params = {name: value for name, value in params.items() if name not in classifier}

    problems += _find_differences(config, 'cls' in params)
    try:
        _complete_positions(params, layout, notes)
        card = _describe(params, layout, config, notes)
        problems += find_misfits(card, params, origins)
    except UserError:
        raise
    except ValueError as error:
        problems += str(error).splitlines()
    if problems:
        raise UserError(
            '\n  '.join([f'{path} looks like {layout.kind}, but:', *problems])
            + '\nIt is damaged, or a variant that computes something else: take a plain ViT'
        )
    side = card.preprocessing.crop_size // card.model['tubelet_size'][1]
    return Weights(
        kind=layout.kind,
        card=card,
        params=flax.traverse_util.unflatten_dict(params, sep='/'),
        grid=(1, side, side),
        unused=_modules(unused, prefix),
        has_head=any(name.startswith('output_projection') for name in params),
        notes=tuple(notes),
    )


def _recognize(names: Collection[str]) -> tuple[Layout, str, str] | None:
    """The layout, the prefix of the names, and the name by which the layout was recognized."""
    for layout in LAYOUTS:
        pattern = re.compile(rf'({layout.prefix})(?:{layout.sign})')
        for name in names:
            if match := pattern.fullmatch(name):
                return layout, match[1], name
    return None


def _rename(
    tensors: Tensors, layout: Layout, prefix: str, heads: int
) -> tuple[dict[str, np.ndarray], dict[str, str], list[str], list[str]]:
    """Renames and transforms tensors.

    Returns:
        Parameters by their names here; the names in the file by the names here; unused names of
        the file; and a line for each unknown name.
    """
    params, origins, unused, problems = {}, {}, [], []
    for name in tensors:
        bare = name.removeprefix(prefix)
        found = [
            (match.expand(target), transform)
            for pattern, target, transform in layout.rules
            if (match := re.fullmatch(pattern, bare))
        ]
        if not found and re.fullmatch(layout.unused, bare):
            unused.append(name)
            continue
        array = tensors[name]
        if not found:
            reasons = [text for pattern, text in VARIANTS if re.fullmatch(pattern, bare)]
            problems.append(f'{name}: {array.shape}, {", ".join(reasons) or "unknown"}')
        for target, transform in found:
            try:
                changed = transform(array, heads)
            except ValueError:
                changed = array  # its shape cannot be right; `find_misfits` will list it
            params[target] = np.array(changed, np.float32, order='C')
            origins[target] = name
    return params, origins, unused, problems


def _has_other_head(unused: list[str], layout: Layout, prefix: str) -> bool:
    """Whether a classifier does not directly follow the encoder, or projects to a text space."""
    bare = (name.removeprefix(prefix) for name in unused)
    return prefix.endswith('img/') or any(re.fullmatch(layout.other_heads, x) for x in bare)


def _complete_positions(params: dict[str, np.ndarray], layout: Layout, notes: list[str]):
    """Makes the position table [1 n d], with a row for the class token if the ViT has one.

    Raises:
        ValueError: an array that tells the sizes is missing or has another rank, or the places of
            the table form no square.
    """
    if TABLE in params and params[TABLE].ndim == 2:
        params[TABLE] = params[TABLE][None]
    computes = layout.computes_positions and TABLE not in params
    wrong = [
        f'{name}: {params[name].shape if name in params else "missing"}, needed ({", ".join(axes)})'
        for name, axes in _AXES.items()
        if name not in params or params[name].ndim != len(axes)
        if not (name == TABLE and computes)
    ]
    if wrong:
        raise ValueError('\n'.join(wrong))
    if computes:
        patch, _, _, width = params[_KERNEL].shape
        params[TABLE] = _sincos_table(_USUAL_SIDE // patch, width)
        notes.append(f'fixed 2-D sines and cosines as positions, for {_USUAL_SIDE} pixels')
    rows, has_class_token = params[TABLE].shape[1], 'cls' in params
    places = rows - has_class_token
    if has_class_token and math.isqrt(rows) ** 2 == rows:
        # timm's no_embed_class, and big_vision, which adds positions before the class token.
        params[TABLE] = np.pad(params[TABLE], ((0, 0), (1, 0), (0, 0)))
    elif places < 1 or math.isqrt(places) ** 2 != places:
        raise ValueError(f'{TABLE}: {places} places of patches, which form no square')


def _describe(
    params: dict[str, np.ndarray], layout: Layout, config: dict, notes: list[str]
) -> ModelCard:
    patch, _, _, width = params[_KERNEL].shape
    has_class_token = 'cls' in params
    side = math.isqrt(params[TABLE].shape[1] - has_class_token)
    classifiers = [x for name, x in params.items() if name.startswith('output_projection')]
    num_classes = classifiers[0].shape[-1] if classifiers else 1
    model = {
        'name': 'vivit_joint',
        'tokenizer': 'uniform_frames',
        'num_sampled_frames': 1,
        'tubelet_size': (1, patch, patch),
        'hidden_size': width,
        'num_layers': count_layers(r'Transformer/encoderblock_(\d+)/', params),
        'num_heads': params[_QUERY].shape[1],
        'mlp_dim': params[_DENSE].shape[1],
        'pool': 'cls' if has_class_token else 'mean',
        'gelu': GELUS.get(config.get('hidden_act'), layout.gelu),
        'layer_norm_eps': config.get('layer_norm_eps', layout.layer_norm_eps),
        'num_classes': num_classes,
    }
    spec = Preprocessing(
        num_frames=1,
        frame_stride=1,
        short_side=round(side * patch * 256 / 224),
        crop_size=side * patch,
        value_range=_value_range(config, notes),
    )
    return ModelCard(model, spec, label_names(config if classifiers else {}, num_classes))


def _sincos_table(side: int, width: int) -> np.ndarray:
    """Sines and cosines of columns, then of rows, [1 n d], as in big_vision and MoCo v3.

    Raises:
        ValueError: `side` is 0, or `width` is less than 8 or no multiple of 4.
    """
    if side < 1 or width % 4 or width < 8:
        raise ValueError(f'missing, and there are no sines and cosines of width {width} for it')
    frequencies = 10000.0 ** -np.linspace(0, 1, width // 4)
    rows, columns = (np.outer(x.ravel(), frequencies) for x in np.indices((side, side)))
    table = np.concatenate([np.sin(columns), np.cos(columns), np.sin(rows), np.cos(rows)], axis=1)
    return table.astype(np.float32)[None]


def _num_heads(config: dict, width: int, path: Path) -> int:
    heads = config.get('num_attention_heads') or _HEADS.get(width)
    if not isinstance(heads, int) or heads < 1 or width % heads:
        raise UserError(
            f'{path}: the number of heads is not in the file and not usual for a width of {width}: '
            'put a config.json with the right "num_attention_heads" beside it'
        )
    return heads


def _find_differences(config: dict, has_class_token: bool) -> list[str]:
    """A line for each setting of a configuration with which a model computes something else."""
    differences = []
    if config.get('hidden_act', 'gelu') not in list(GELUS):
        differences.append(f'config.json: hidden_act={config["hidden_act"]!r} is no GELU')
    pool = 'token' if has_class_token else 'avg'
    if config.get('global_pool', pool) not in (pool, 'map'):
        tokens = 'the patches, without the class token' if has_class_token else 'other tokens'
        differences.append(f'config.json: global_pool={config["global_pool"]!r} pools {tokens}')
    return differences


def _value_range(config: dict, notes: list[str]) -> tuple[float, float]:
    """The values that pixels of 0 and 255 become; (-1, 1) if the colours differ in that."""
    mean, std = colours(config) or ((0.5,), (0.5,))
    ranges = {(-m / s, (1 - m) / s) for m, s in zip(mean, std, strict=True)}
    if len(ranges) > 1:
        notes.append(f'trained on colours in [0, 1] less {mean}, over {std}, not on (-1, 1)')
        return -1.0, 1.0
    return ranges.pop()


def _modules(names: list[str], prefix: str) -> tuple[str, ...]:
    """The modules that contain some names, as in `('params/MAPHead_0/*',)`."""
    separators = re.compile(r'(?<=[/.])')
    shortened = {}
    for name in names:
        depth = len(separators.split(prefix)) if name.startswith(prefix) else 2
        parts = separators.split(name)
        shortened[''.join(parts[:depth]) + '*' * (len(parts) > depth)] = None
    return tuple(shortened)
