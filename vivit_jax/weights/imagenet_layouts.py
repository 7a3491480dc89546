"""How other libraries name and lay out the parameters of ViTs for images, and the names here.

`weights/torch_layout.py` has tables between PyTorch and this package too, but its transforms need
the shape of the target; here the shapes of the file tell the model. Also, one array of timm
becomes three.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np

from vivit_jax.weights.folding import LAYER_SCALE
from vivit_jax.weights.positions import PositionResize
from vivit_jax.weights.tensor_files import Tensors

TABLE = 'Transformer/posembed_input/pos_embedding'
_BLOCK = r'Transformer/encoderblock_\1'
_ATTENTION = rf'{_BLOCK}/MultiHeadDotProductAttention_0'

# Transforms: functions of an array and the number of heads.


def _same(x: np.ndarray, heads: int) -> np.ndarray:
    return x


def _token(x: np.ndarray, heads: int) -> np.ndarray:
    """[d] to [1 1 d]."""
    return x.reshape(1, 1, -1)


def _transposed(x: np.ndarray, heads: int) -> np.ndarray:
    return x.T


def _patches(x: np.ndarray, heads: int) -> np.ndarray:
    """[d c h w] to [h w c d]."""
    return x.transpose(2, 3, 1, 0)


def _into_heads(x: np.ndarray, heads: int) -> np.ndarray:
    """A kernel [k·e d] to [d k e], or a bias [k·e] to [k e]."""
    return x.T.reshape(*x.shape[1:], heads, -1)


def _out_of_heads(x: np.ndarray, heads: int) -> np.ndarray:
    """[d k·e] to [k e d]."""
    return x.T.reshape(heads, -1, x.shape[0])


def _third(index: int) -> Callable[[np.ndarray, int], np.ndarray]:
    """Takes the queries (0), keys (1) or values (2) out of a layer that makes all three."""
    return lambda x, heads: _into_heads(np.split(x, 3)[index], heads)


# A rule: a pattern of a name in the file, the name here, and the transform of the array.


def _flax_rules(*, attention: int, second_norm: int, mlp: int) -> tuple:
    """Rules for ViTs of JAX libraries, which number the modules of a block differently."""
    block = r'Transformer/encoderblock_(\d+)'
    projection = rf'MultiHeadDotProductAttention_{attention}/(query|key|value|out)'
    return (
        (r'embedding/(kernel|bias)', r'embedding/\1', _same),
        (r'cls', 'cls', _same),
        (r'(?:Transformer/(?:posembed_input/)?)?pos_embedding', TABLE, _same),
        (rf'{block}/LayerNorm_0/(scale|bias)', rf'{_BLOCK}/LayerNorm_0/\2', _same),
        (rf'{block}/{projection}/(kernel|bias)', rf'{_ATTENTION}/\2/\3', _same),
        (rf'{block}/LayerNorm_{second_norm}/(scale|bias)', rf'{_BLOCK}/LayerNorm_1/\2', _same),
        (
            rf'{block}/MlpBlock_{mlp}/(Dense_[01])/(kernel|bias)',
            rf'{_BLOCK}/MlpBlock_0/\2/\3',
            _same,
        ),
        (r'Transformer/encoder_norm/(scale|bias)', r'Transformer/encoder_norm/\1', _same),
        (r'head/(kernel|bias)', r'output_projection/\1', _same),
    )


# For each kind of module: name in PyTorch, name here and transform of each of its arrays.
_CONVOLUTION = (('weight', 'kernel', _patches), ('bias', 'bias', _same))
_NORM = (('weight', 'scale', _same), ('bias', 'bias', _same))
_LINEAR = (('weight', 'kernel', _transposed), ('bias', 'bias', _same))
_HEADS_IN = (('weight', 'kernel', _into_heads), ('bias', 'bias', _into_heads))
_HEADS_OUT = (('weight', 'kernel', _out_of_heads), ('bias', 'bias', _same))
_THIRDS = [(('weight', 'kernel', _third(i)), ('bias', 'bias', _third(i))) for i in range(3)]


def _torch_rules(*modules: tuple[str, str, tuple]) -> tuple:
    """Rules for the weight and the bias of each module."""
    return tuple(
        (rf'{source}\.{theirs}', rf'{target}/{ours}', transform)
        for source, target, parameters in modules
        for theirs, ours, transform in parameters
    )


_TIMM = (
    (r'cls_token', 'cls', _same),
    (r'pos_embed', TABLE, _same),
    (r'blocks\.(\d+)\.ls1\.gamma', rf'{_ATTENTION}/out/{LAYER_SCALE}', _same),
    (r'blocks\.(\d+)\.ls2\.gamma', rf'{_BLOCK}/MlpBlock_0/Dense_1/{LAYER_SCALE}', _same),
    *_torch_rules(
        (r'patch_embed\.proj', 'embedding', _CONVOLUTION),
        (r'blocks\.(\d+)\.norm1', rf'{_BLOCK}/LayerNorm_0', _NORM),
        (r'blocks\.(\d+)\.attn\.qkv', rf'{_ATTENTION}/query', _THIRDS[0]),
        (r'blocks\.(\d+)\.attn\.qkv', rf'{_ATTENTION}/key', _THIRDS[1]),
        (r'blocks\.(\d+)\.attn\.qkv', rf'{_ATTENTION}/value', _THIRDS[2]),
        (r'blocks\.(\d+)\.attn\.proj', rf'{_ATTENTION}/out', _HEADS_OUT),
        (r'blocks\.(\d+)\.norm2', rf'{_BLOCK}/LayerNorm_1', _NORM),
        (r'blocks\.(\d+)\.mlp\.fc1', rf'{_BLOCK}/MlpBlock_0/Dense_0', _LINEAR),
        (r'blocks\.(\d+)\.mlp\.fc2', rf'{_BLOCK}/MlpBlock_0/Dense_1', _LINEAR),
        (r'norm_pre', 'Transformer/pre_norm', _NORM),
        (r'norm', 'Transformer/encoder_norm', _NORM),
        (r'head', 'output_projection', _LINEAR),
    ),
)

# Each name has two forms: in files, and in memory since transformers 5.
_LAYER = r'(?:encoder\.layer|layers)\.(\d+)'
_HUGGING_FACE = (
    (r'embeddings\.cls_token', 'cls', _same),
    (r'embeddings\.position_embeddings', TABLE, _same),
    (rf'{_LAYER}\.layer_scale1\.lambda1', rf'{_ATTENTION}/out/{LAYER_SCALE}', _same),
    (rf'{_LAYER}\.layer_scale2\.lambda1', rf'{_BLOCK}/MlpBlock_0/Dense_1/{LAYER_SCALE}', _same),
    *_torch_rules(
        (r'embeddings\.patch_embeddings\.projection', 'embedding', _CONVOLUTION),
        (rf'{_LAYER}\.(?:layernorm_before|norm1)', rf'{_BLOCK}/LayerNorm_0', _NORM),
        (rf'{_LAYER}\.attention\.(?:attention\.query|q_proj)', rf'{_ATTENTION}/query', _HEADS_IN),
        (rf'{_LAYER}\.attention\.(?:attention\.key|k_proj)', rf'{_ATTENTION}/key', _HEADS_IN),
        (rf'{_LAYER}\.attention\.(?:attention\.value|v_proj)', rf'{_ATTENTION}/value', _HEADS_IN),
        (rf'{_LAYER}\.attention\.(?:output\.dense|o_proj)', rf'{_ATTENTION}/out', _HEADS_OUT),
        (rf'{_LAYER}\.(?:layernorm_after|norm2)', rf'{_BLOCK}/LayerNorm_1', _NORM),
        (rf'{_LAYER}\.(?:intermediate\.dense|mlp\.fc1)', rf'{_BLOCK}/MlpBlock_0/Dense_0', _LINEAR),
        (rf'{_LAYER}\.(?:output\.dense|mlp\.fc2)', rf'{_BLOCK}/MlpBlock_0/Dense_1', _LINEAR),
        (r'layernorm', 'Transformer/encoder_norm', _NORM),
        (r'classifier', 'output_projection', _LINEAR),
    ),
)

_LAYERS = r'encoder\.layers\.(\d+)'
_CLIP_AND_SIGLIP = (
    (r'embeddings\.class_embedding', 'cls', _token),
    (r'embeddings\.position_embedding\.weight', TABLE, _same),
    *_torch_rules(
        (r'embeddings\.patch_embedding', 'embedding', _CONVOLUTION),
        (r'pre_layrnorm', 'Transformer/pre_norm', _NORM),
        (rf'{_LAYERS}\.layer_norm1', rf'{_BLOCK}/LayerNorm_0', _NORM),
        (rf'{_LAYERS}\.self_attn\.q_proj', rf'{_ATTENTION}/query', _HEADS_IN),
        (rf'{_LAYERS}\.self_attn\.k_proj', rf'{_ATTENTION}/key', _HEADS_IN),
        (rf'{_LAYERS}\.self_attn\.v_proj', rf'{_ATTENTION}/value', _HEADS_IN),
        (rf'{_LAYERS}\.self_attn\.out_proj', rf'{_ATTENTION}/out', _HEADS_OUT),
        (rf'{_LAYERS}\.layer_norm2', rf'{_BLOCK}/LayerNorm_1', _NORM),
        (rf'{_LAYERS}\.mlp\.fc1', rf'{_BLOCK}/MlpBlock_0/Dense_0', _LINEAR),
        (rf'{_LAYERS}\.mlp\.fc2', rf'{_BLOCK}/MlpBlock_0/Dense_1', _LINEAR),
        (r'post_layernorm', 'Transformer/encoder_norm', _NORM),
    ),
)

# Parts of other architectures, which are refused: a pattern of their names, and a description.
VARIANTS = (
    (r'(embeddings\.)?(reg(ister)?_tokens?|storage_tokens)', 'register tokens'),
    (r'(embeddings\.)?dist(illation)?_token|head_dist\..+', 'a distillation token'),
    (r'.+\.[qk]_norm\..+', 'LayerNorms of queries and keys'),
    (
        r'fc_norm\..+',
        'a LayerNorm after the mean over patches, from which a class token is left out',
    ),
    (r'.+\.(gamma_[12]|lambda_[12]|[qv]_bias)', 'blocks of BEiT or EVA'),
    (r'.+\.(relative_position|rel_pos).*', 'relative positions'),
    (r'patch_embed\.backbone\..+', 'a CNN before the patches'),
    (r'rope.*', 'rotary positions'),
    (r'embeds\..+', 'embeddings of images of any shape (NaFlex)'),
    (r'.+\.mlp\.(w12|w3|fc1_g|fc1_x|weights_in|weights_out|gate_proj)\..+', 'SwiGLU'),
)


_HALF = ((0.5,) * 3, (0.5,) * 3)
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a library stores a ViT.

    Attributes:
        kind: a description for people.
        prefix: pattern of the prefix that all names may have.
        sign: pattern of a name that every such file has, without the prefix.
        rules: the rules, as described above.
        unused: pattern of names that are left out.
        other_heads: pattern of unused names that stand between the encoder and the classifier.
        gelu, layer_norm_eps: the models' keywords, unless a `config.json` tells others.
        colours: means and deviations of the colours in [0, 1], unless a configuration tells others.
        has_class_row: whether the position table always has a row for a class token.
        has_config: whether a `config.json` may stand beside the file.
        computes_positions: whether a model without a position table has fixed sines and cosines.
        position_resize: how the library interpolates positions for images of other sizes, see
            `resize_positions`.
    """

    kind: str
    prefix: str
    sign: str
    rules: tuple[tuple[str, str, Callable[[np.ndarray, int], np.ndarray]], ...]
    unused: str
    other_heads: str
    gelu: str = 'exact'
    layer_norm_eps: float = 1e-6
    colours: tuple[tuple[float, ...], tuple[float, ...]] = _HALF
    has_class_row: bool = False
    has_config: bool = True
    computes_positions: bool = False
    position_resize: PositionResize = 'bicubic'


# Attention pooling, under its names in newer and older files, and a hidden layer.
_FLAX_HEADS = (
    r'(MAPHead_0|MlpBlock_0|MultiHeadDotProductAttention_0|LayerNorm_0|pre_logits)/.+|probe'
)
_flax_layout = functools.partial(
    Layout,
    prefix=r'(?:(?:opt/)?target/)?(?:params/)?(?:img/)?',
    unused=rf'(opt|optimizer|state|chrono|params|target|txt)/.+|[tb]|{_FLAX_HEADS}',
    other_heads=_FLAX_HEADS,
    gelu='tanh',
    has_config=False,
    position_resize='linear',
)
_timm_layout = functools.partial(
    Layout,
    prefix=r'(?:module\.)?',
    rules=_TIMM,
    unused=r'attn_pool\..+|mask_token|decoder_.+',  # the decoder of MAE, which has a mask token
    other_heads=r'attn_pool\..+',
    position_resize='antialiased bicubic',
)
_hugging_face_layout = functools.partial(
    Layout,
    prefix=r'(?:vit\.|dinov2\.|deit\.)?',
    rules=_HUGGING_FACE,
    unused=r'pooler\..+|embeddings\.mask_token|decoder\..+',
    other_heads=r'classifier\..+',
    has_class_row=True,
)
_clip_layout = functools.partial(
    Layout,
    prefix=r'(?:vision_model\.)?',
    rules=_CLIP_AND_SIGLIP,
    # Attention pooling, texts, and a classifier of the mean over tokens.
    unused=r'head\..+|(text_model|visual_projection|text_projection|classifier)\..+|'
    r'logit_(scale|bias)|embeddings\.position_ids',
    other_heads=r'(?!)',
    has_class_row=True,
)
LAYOUTS = (
    _flax_layout(
        kind='image ViT, AugReg .npz',
        sign=r'Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel',
        rules=_flax_rules(attention=1, second_norm=2, mlp=3),
    ),
    _flax_layout(
        kind='image ViT, big_vision .npz',
        sign=r'Transformer/encoderblock(_0)?/MultiHeadDotProductAttention_0/query/kernel',
        rules=_flax_rules(attention=0, second_norm=1, mlp=0),
        computes_positions=True,
    ),
    _timm_layout(
        kind='image ViT with LayerScale, timm',
        sign=r'blocks\.0\.ls1\.gamma',
        colours=_IMAGENET,
    ),
    _timm_layout(kind='image ViT, timm', sign=r'blocks\.0\.attn\.qkv\.weight'),
    _hugging_face_layout(
        kind='image ViT, Hugging Face DINO',
        sign=r'(encoder\.|model\.)?layer\.0\.layer_scale1\.lambda1',
        unused=r'embeddings\.mask_token|classifier\..+',  # of the class token and a mean
        colours=_IMAGENET,
    ),
    _hugging_face_layout(
        kind='image ViT, Hugging Face',
        sign=r'encoder\.layer\.0\.attention\.attention\.query\.weight|layers\.0\.attention\.q_proj\.weight',
        layer_norm_eps=1e-12,
    ),
    _clip_layout(
        kind='image tower, Hugging Face CLIP',
        sign=r'pre_layrnorm\.weight',
        gelu='quick',
        layer_norm_eps=1e-5,
        colours=_CLIP,
    ),
    _clip_layout(
        kind='image tower, Hugging Face SigLIP',
        sign=r'post_layernorm\.weight',
        gelu='tanh',
    ),
)


def unstack(tensors: Tensors, prefix: str) -> Tensors:
    """Splits stacked arrays (of blocks under `nn.scan`, layers first) into one array per layer."""
    stem = f'{prefix}Transformer/encoderblock/'
    if not any(name.startswith(stem) for name in tensors):
        return tensors
    depth = len(tensors[f'{stem}MultiHeadDotProductAttention_0/query/kernel'])
    # The layers of an array are read one after the other, so that a cache of one array is enough.
    load = functools.lru_cache(maxsize=1)(tensors.__getitem__)

    def load_layer(name: str, layer: int) -> np.ndarray:
        array = load(name)
        return array[layer] if len(array) == depth else array  # a misfit, which is reported later

    loaders = {}
    for name in tensors:
        if name.startswith(stem):
            for layer in range(depth):
                block = f'{prefix}Transformer/encoderblock_{layer}/{name.removeprefix(stem)}'
                loaders[block] = functools.partial(load_layer, name, layer)
        else:
            loaders[name] = functools.partial(load, name)
    return Tensors(loaders)
