"""Reads Vision Transformers for images from the files of other libraries.

These are the `.npz` of vision_transformer (AugReg) and big_vision, and the PyTorch files of timm
and Hugging Face.
"""

import re
from collections.abc import Collection
from pathlib import Path

import flax.traverse_util
import numpy as np

from vivit_jax.errors import UserError, list_some
from vivit_jax.layers.keywords import SIZES
from vivit_jax.model_card import ModelCard
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.weights.folding import fold_colours, fold_layer_scale
from vivit_jax.weights.huggingface_config import GELUS, colours, is_multi_label, label_names
from vivit_jax.weights.image_vit_config import find_other_settings, read_config
from vivit_jax.weights.image_vit_positions import complete_positions
from vivit_jax.weights.imagenet_layouts import LAYOUTS, TABLE, VARIANTS, Layout, unstack
from vivit_jax.weights.misfits import count_layers, find_misfits
from vivit_jax.weights.tensor_files import Tensors
from vivit_jax.weights.weights import Weights

# The arrays whose shapes tell the sizes of the model, and the names of their axes.
_KERNEL = 'embedding/kernel'
_QUERY = 'Transformer/encoderblock_0/MultiHeadDotProductAttention_0/query/kernel'
_DENSE = 'Transformer/encoderblock_0/MlpBlock_0/Dense_0/kernel'
_PRE_NORM = 'Transformer/pre_norm/scale'
_SECOND_DENSE = 'Transformer/encoderblock_0/MlpBlock_0/Dense_1/kernel'
_AXES = {
    _KERNEL: ('patch', 'patch', 'channels', 'width'),
    _QUERY: ('width', 'heads', 'width of a head'),
    _DENSE: ('width', 'hidden width'),
    TABLE: ('1', 'places', 'width'),
}

_HEADS = {size['hidden_size']: size['num_heads'] for size in SIZES.values()}  # by width


def matches(names: Collection[str]) -> bool:
    """Whether the names of arrays belong to an image ViT in a known layout."""
    return _recognize(names) is not None


def read_image_vit(
    tensors: Tensors, path: Path, value_range: tuple[float, float] | None = None
) -> Weights:
    """Reads an image ViT as a `vivit_joint` for clips of one frame in [-1, 1].

    Beside a PyTorch file a `config.json` tells heads, GELU, epsilon, grid and classes, and it or
    `preprocessor_config.json` tells means and deviations of the colours. Notes say what is assumed
    without them.

    Factors of LayerScale, and means and deviations of the colours, are folded into the layers
    beside them: the model computes the same. Positions on a grid that is not square are resized to
    a square. If a class token has no row in the position table, it gets a row of zeros. Files of
    big_vision do not hold its fixed sines and cosines; these are computed, for images of 224
    pixels. A classifier is left out if it follows attention pooling or a hidden layer, or if it
    belongs to a model of images and texts.

    Args:
        tensors: the tensors of the file.
        path: the path of the file.
        value_range: the values that pixels of 0 and 255 become, if the configuration tells them
            wrongly; the model then takes these.

    Raises:
        UserError: the model computes something else, and the message has a line for each
            difference; or arrays are missing, unknown or misshapen, and the message lists all of
            them, or, if the sizes of the model cannot be found, all that prevent finding them.
    """
    recognized = _recognize(tensors)
    if recognized is None:
        raise UserError(f'{path} is no image ViT: it holds {", ".join(list(tensors)[:5])}, ...')
    layout, prefix, sign = recognized
    config, heads, notes = {}, 0, []
    if layout.has_config:
        width = tensors[sign].shape[-1]
        config = read_config(path, width)
        heads = _num_heads(config, width, path)
        notes += _assumptions(config, layout, heads)
    params, origins, unused, unknown = _rename(unstack(tensors, prefix), layout, prefix, heads)
    if _has_other_head(unused, layout, prefix) or _projects_to_texts(params):
        classifier = [name for name in params if name.startswith('output_projection')]
        unused += [origins[name] for name in classifier]
        params = {name: value for name, value in params.items() if name not in classifier}

    problems = _find_differences(layout, config, params, unknown, prefix)
    if not problems:
        problems = [f'{name}: {shape}, unknown' for name, shape in unknown.items()]
        try:
            fold_layer_scale(params)
            _check_axes(params, layout)
            _add_biases(params)
            side = complete_positions(params, len(params[_KERNEL]), layout, config, notes)
            card = _describe(params, layout, config, side)
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
    if layout.has_config and value_range is None:
        fold_colours(params, *_colours(config, layout, notes))
    return Weights(
        kind=layout.kind,
        card=card,
        params=flax.traverse_util.unflatten_dict(params, sep='/'),
        grid=(1, side, side),
        unused=_modules(unused, set(tensors) - set(unused), prefix),
        has_head=any(name.startswith('output_projection') for name in params),
        notes=tuple(notes),
        position_resize=layout.position_resize,
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
) -> tuple[dict[str, np.ndarray], dict[str, str], list[str], dict[str, tuple[int, ...]]]:
    """Renames and transforms tensors.

    Returns:
        Parameters by their names here; the names in the file by the names here; unused names of
        the file; and the shapes of unknown tensors by their names in the file.
    """
    params, origins, unused, unknown = {}, {}, [], {}
    for name in tensors:
        bare = name.removeprefix(prefix)
        if re.fullmatch(layout.unused, bare):
            unused.append(name)
            continue
        found = [
            (match.expand(target), transform)
            for pattern, target, transform in layout.rules
            if (match := re.fullmatch(pattern, bare))
        ]
        array = tensors[name]
        if not found:
            unknown[name] = array.shape
        for target, transform in found:
            try:
                changed = transform(array, heads)
            except ValueError:
                changed = array  # its shape cannot be right; `find_misfits` will list it
            params[target] = np.array(changed, np.float32, order='C')
            origins[target] = name
    return params, origins, unused, unknown


def _has_other_head(unused: list[str], layout: Layout, prefix: str) -> bool:
    """Whether a classifier does not directly follow the encoder, or projects to a text space."""
    bare = (name.removeprefix(prefix) for name in unused)
    return prefix.endswith('img/') or any(re.fullmatch(layout.other_heads, x) for x in bare)


def _projects_to_texts(params: dict[str, np.ndarray]) -> bool:
    """Whether a classifier is the projection of a CLIP in timm, with a bias of zeros."""
    bias = params.get('output_projection/bias')
    return _PRE_NORM in params and bias is not None and not bias.any()


def _check_axes(params: dict[str, np.ndarray], layout: Layout):
    """Makes a position table [n d] one of [1 n d], and checks what tells the sizes.

    Raises:
        ValueError: an array that tells the sizes is missing or has another rank; lists them.
    """
    if TABLE in params and params[TABLE].ndim == 2:
        params[TABLE] = params[TABLE][None]
    wrong = [
        f'{name}: {params[name].shape if name in params else "missing"}, needed ({", ".join(axes)})'
        for name, axes in _AXES.items()
        if name not in params or params[name].ndim != len(axes)
        if not (name == TABLE and layout.computes_positions and TABLE not in params)
    ]
    if wrong:
        raise ValueError('\n'.join(wrong))


def _add_biases(params: dict[str, np.ndarray]):
    """Adds biases of zero where a ViT has none: in all attentions, before CLIP's LayerNorm."""
    if _PRE_NORM in params:
        params.setdefault('embedding/bias', np.zeros_like(params[_PRE_NORM]))
    kernels = [name for name in params if re.fullmatch(r'.+/(query|key|value)/kernel', name)]
    biases = {name: f'{name.removesuffix("kernel")}bias' for name in kernels}
    if not params.keys() & set(biases.values()):
        for name, bias in biases.items():
            params[bias] = np.zeros(params[name].shape[1:], np.float32)


def _describe(params: dict[str, np.ndarray], layout: Layout, config: dict, side: int) -> ModelCard:
    patch, _, _, width = params[_KERNEL].shape
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
        'pool': 'cls' if 'cls' in params else 'mean',
        'gelu': GELUS.get(config.get('hidden_act'), layout.gelu),
        'layer_norm_eps': config.get('layer_norm_eps', layout.layer_norm_eps),
        'pre_norm': _PRE_NORM in params,
        'num_classes': num_classes,
    }
    spec = Preprocessing(
        num_frames=1,
        frame_stride=1,
        short_side=round(side * patch * 256 / 224),
        crop_size=side * patch,
    )
    of_head = config if classifiers else {}
    names = label_names(of_head, num_classes)
    return ModelCard(model, spec, names, is_multi_label=is_multi_label(of_head))


def _num_heads(config: dict, width: int, path: Path) -> int:
    heads = config.get('num_attention_heads', _HEADS.get(width))
    if not isinstance(heads, int) or heads < 1 or width % heads:
        raise UserError(
            f'{path}: the number of heads is not in the file and not usual for a width of {width}: '
            'put a config.json with the right "num_attention_heads" beside it'
        )
    return heads


def _assumptions(config: dict, layout: Layout, heads: int) -> list[str]:
    """A line about the fields that no configuration tells; in Hugging Face's they have defaults."""
    values = {
        'num_attention_heads': heads,
        'hidden_act': f'{layout.gelu} GELU',
        'layer_norm_eps': layout.layer_norm_eps,
    }
    missing = {name: value for name, value in values.items() if name not in config}
    if not missing or 'model_type' in config:
        return []
    assumed = ', '.join(f'{name} ({value} assumed)' for name, value in missing.items())
    return [f'no config.json tells {assumed}']


def _find_differences(
    layout: Layout,
    config: dict,
    params: dict[str, np.ndarray],
    unknown: Collection[str],
    prefix: str,
) -> list[str]:
    """A line for each part or setting with which a model computes something else."""
    differences = []
    for pattern, part in VARIANTS:
        names = [x for x in unknown if re.fullmatch(pattern, x.removeprefix(prefix))]
        if names:
            differences.append(f'it has {part}: {list_some(names, 2)}')
    shapes = {name: array.shape for name, array in params.items()}
    first, second = (shapes.get(name, ()) for name in (_DENSE, _SECOND_DENSE))
    if first and second and first[-1] == 2 * second[0]:
        differences.append(f'it has SwiGLU: its MLPs are {first} and {second}')
    if len(shapes.get(_KERNEL, ())) == 2:
        differences.append(f'it embeds flat patches (NaFlex): {shapes[_KERNEL]}')
    if layout.has_config and TABLE not in params:
        differences.append(
            'it has no position table, as DINOv3 and other models with rotary or relative positions'
        )
    if _PRE_NORM in params and not config.keys() & {'hidden_act', 'model_type'}:
        differences.append(
            'it has a LayerNorm before the blocks, as CLIP, and no config.json tells its GELU: '
            '"hidden_act" is "quick_gelu" for OpenAI\'s CLIP and "gelu" for most others'
        )
    return differences + find_other_settings(config, 'cls' in params)


def _colours(config: dict, layout: Layout, notes: list[str]) -> tuple[tuple[float, ...], ...]:
    """Means and deviations of the colours in [0, 1]."""
    found = colours(config)
    if found is None:
        mean, std = layout.colours
        notes.append(
            f'no means and deviations of the colours beside the file: {mean} and {std} assumed; '
            'image_mean and image_std in a preprocessor_config.json tell others'
        )
    return found or layout.colours


def _modules(names: list[str], others: Collection[str], prefix: str) -> tuple[str, ...]:
    """The modules that contain some names and no others, as in `('params/MAPHead_0/*',)`."""
    separators = re.compile(r'(?<=[/.])')
    shortened = {}
    for name in names:
        depth = len(separators.split(prefix)) if name.startswith(prefix) else 2
        parts = separators.split(name)
        module = ''.join(parts[:depth])
        is_whole = not any(other.startswith(module) for other in others)
        shortened[module + '*' * (len(parts) > depth) if is_whole else name] = None
    return tuple(shortened)
