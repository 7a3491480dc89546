"""A ViViT that starts from a ViT for images.

Source: ViViT (arXiv 2103.15691), section 3.4.
"""

import fnmatch
import math

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from vivit_jax.errors import UserError
from vivit_jax.models.vivit import ViViT
from vivit_jax.weights.copying import copy_parameters, position_grids
from vivit_jax.weights.positions import fit_positions, format_grid
from vivit_jax.weights.report import Report

TUBELET_INITS = ('central_frame', 'filter_inflation', 'random')
TEMPORAL_ATTENTION_INITS = ('zero', 'pretrained', 'fresh')

_KERNEL = 'embedding/kernel'
_POSITIONS = 'Transformer/posembed_input/pos_embedding'

# A parameter of the ViViT and what it starts from in the ViT; the first match counts.
_RULES = (
    (r'embedding/(\w+)', r'embedding/\1'),
    (r'cls(_SpatialTransformer)?', r'cls'),
    (
        r'Transformer/(\w+)/(LayerNorm|MultiHeadDotProductAttention)_space/(.+)',
        r'Transformer/\1/\2_0/\3',
    ),
    (r'Transformer/(\w+)/LayerNorm_mlp/(.+)', r'Transformer/\1/LayerNorm_1/\2'),
    (r'Transformer/(\w+)/MlpBlock/(.+)', r'Transformer/\1/MlpBlock_0/\2'),
    (r'(Spatial)?Transformer/(.+)', r'Transformer/\2'),
)
_TEMPORAL_ATTENTION_RULE = (
    r'Transformer/(\w+)/(MultiHeadDotProductAttention)_time/(.+)',
    r'Transformer/\1/\2_0/\3',
)

HEAD = 'output_projection*'

# What a ViViT has and a ViT lacks, or the other way round.
_NEW = (
    'cls*',  # FE's temporal one; any, where the ViT has none
    'TemporalTransformer/*',
    '*/LayerNorm_time/*',
    '*/MultiHeadDotProductAttention_time/*',
)
_UNUSED = (
    'output_projection/*',
    'head/*',
    'pre_logits/*',
    'cls',  # with pool='mean'
    _POSITIONS,  # where positions are not learned
)


def init_from_image_vit(
    model: ViViT,
    params: dict,
    image_vit: dict,
    *,
    clip_shape: tuple[int, int, int],
    tubelet_init: str = 'central_frame',
    temporal_attention_init: str = 'zero',
    image_grid: tuple[int, int] | None = None,
    reinit: tuple[str, ...] = ('head',),
) -> tuple[dict, Report]:
    """Puts the parameters of an image ViT into a ViViT.

    All that both have is copied; the kernel and the positions of the ViT are extended in time.
    FE's temporal encoder, the LayerNorms before temporal attention, the classifier, and a class
    token that the ViT lacks stay as they are in `params`. Class tokens have a row in the position
    table, which goes the same way: the ViT's, a new one, or, without class token, none.

    >>> params = model.init(key, clip)['params']
    >>> params, report = init_from_image_vit(model, params, vit, clip_shape=(32, 224, 224))

    Source: ViViT, section 3.4. Differs from the original implementation: FE inherits the class
    token.

    Args:
        model: one of the four ViViTs.
        params: its freshly initialized parameters.
        image_vit: the parameters of a ViT under the names of `vivit_joint`, with a kernel
            [h w c d]. `cls` may be missing; a classifier `output_projection` or `head` and
            `pre_logits` are left out.
        clip_shape: (t, h, w) in frames and pixels, that of the clips `params` were made for.
        tubelet_init: a tubelet of t frames gets the ViT's kernel E at frame t // 2 and zeros
            elsewhere (`'central_frame'`), or E / t at every frame (`'filter_inflation'`), or keeps
            its own (`'random'`).
        temporal_attention_init: of FSA. `'zero'`: its output projection is zero, so that at first
            blocks compute what the ViT's do; queries, keys and values stay random, as with zeros
            there too no kernel would ever get a gradient. `'pretrained'`: a copy of the ViT's
            attention. `'fresh'`: stays as it is.
        image_grid: (h, w) of the ViT's position table; a square if None.
        reinit: `()` makes the classifier, which is always new, an error.

    Returns:
        New parameters of the types of `params` that share no memory with `image_vit`, and what
        became of each.

    Raises:
        UserError: an unknown choice; the ViT's position table is not of `image_grid`; or the ViT
            does not fit, with everything that is the matter.
        ValueError: `clip_shape` does not divide into tubelets or is not that of `params`.
    """
    _check_choice('tubelet_init', tubelet_init, TUBELET_INITS)
    _check_choice('temporal_attention_init', temporal_attention_init, TEMPORAL_ATTENTION_INITS)
    target = flax.traverse_util.flatten_dict(params, sep='/')
    source = flax.traverse_util.flatten_dict(image_vit, sep='/')

    # First the ViT is extended in time, then it is a matter of names.
    extended = {name: jnp.asarray(x, jnp.float32) for name, x in source.items()}
    changes = {}  # status and detail of what is not simply copied or new
    if tubelet_init != 'random' and _KERNEL in source and target[_KERNEL].ndim == 5:
        extended[_KERNEL], changes[_KERNEL] = _inflate_kernel(
            extended[_KERNEL], model.tubelet_size[0], tubelet_init
        )
    for name, places in position_grids(model, target, clip_shape).items():
        if _POSITIONS in source and not name.startswith('Temporal'):
            num_class_tokens = int('cls' in source)
            num_places = source[_POSITIONS].shape[1] - num_class_tokens
            extended[_POSITIONS], changes[_POSITIONS] = fit_positions(
                extended[_POSITIONS],
                num_class_tokens,
                _checked_grid(image_grid, num_places),
                target[name],
                places,
            )

    rules = _RULES
    if tubelet_init == 'random':
        rules = ((_KERNEL, ''), *rules)
    if temporal_attention_init == 'pretrained':
        rules = (_TEMPORAL_ATTENTION_RULE, *rules)
    elif temporal_attention_init == 'zero':
        for name in fnmatch.filter(target, '*_time/out/*'):
            target[name], changes[name] = jnp.zeros_like(target[name]), ('new', 'zero')

    result, entries = copy_parameters(target, extended, rules, changes)
    report = Report(tuple(entries))
    random = (_KERNEL,) if tubelet_init == 'random' else ()
    head = (HEAD,) if 'head' in reinit else ()
    report.check(new=(*_NEW, *random, *head), unused=(*_UNUSED, *random))
    return flax.traverse_util.unflatten_dict(result, sep='/'), report


def resize_kernel(kernel: np.ndarray, length: int) -> tuple[np.ndarray, tuple[str, str]]:
    """A tubelet kernel [t h w c d] for tubelets of another length, and what is to be reported.

    It is interpolated linearly in time. Each frame's share of the new kernel adds up to what it
    was, so that the tokens of a still video stay the same.
    """
    old = kernel.shape[0]
    if old == length:
        return kernel, ('copied', '')
    weights = jax.image.resize(jnp.eye(old), (length, old), 'linear', antialias=True)
    weights = np.asarray(weights / weights.sum(axis=0))
    detail = f'tubelets of {old} frames -> {length}'
    return np.einsum('ts,s...->t...', weights, kernel), ('resized', detail)


def _inflate_kernel(
    kernel: jax.Array, length: int, tubelet_init: str
) -> tuple[jax.Array, tuple[str, str]]:
    """A kernel [h w c d] to [t h w c d], and what is to be reported."""
    if tubelet_init == 'filter_inflation':
        inflated = jnp.broadcast_to(kernel / length, (length, *kernel.shape))
        return inflated, ('inflated', f'1/{length} at each of {length} frames')
    inflated = jnp.zeros((length, *kernel.shape), kernel.dtype).at[length // 2].set(kernel)
    return inflated, ('inflated', f'central frame of {length}')


def _checked_grid(grid: tuple[int, int] | None, num_places: int) -> tuple[int, int]:
    grid = tuple(grid or (math.isqrt(num_places),) * 2)
    if math.prod(grid) != num_places:
        raise UserError(
            f'image_grid={format_grid(grid)} is not that of the {num_places} places in the '
            'position table of the ViT: give (h, w), the patches along height and width of its '
            'images'
        )
    return grid


def _check_choice(keyword: str, value: str, choices: tuple[str, ...]):
    if value not in choices:
        raise UserError(f'{keyword}={value!r} must be one of {choices}')
