"""A model for videos that starts from a ViT for images.

Source: ViViT (arXiv 2103.15691), section 3.4.
"""

import math

import flax.linen as nn
import flax.traverse_util

from vivit_jax.errors import UserError
from vivit_jax.weights.copy_rules import NEW_HEAD, TEMPORAL_ATTENTION_INITS, UNUSED, image_vit_rules
from vivit_jax.weights.copying import copy_parameters
from vivit_jax.weights.positions import count_class_tokens, format_grid
from vivit_jax.weights.report import Report
from vivit_jax.weights.tubelets import TUBELET_INITS

_POSITIONS = 'Transformer/posembed_input/pos_embedding'


def init_from_image_vit(
    model: nn.Module,
    params: dict,
    image_vit: dict,
    *,
    clip_shape: tuple[int, int, int],
    tubelet_init: str = 'central_frame',
    temporal_attention_init: str = 'zero',
    image_grid: tuple[int, int] | None = None,
    reinit: tuple[str, ...] = ('head',),
) -> tuple[dict, Report]:
    """Puts the parameters of an image ViT into a model for videos.

    All that both have is copied; the kernel and the positions of the ViT are extended in time.
    FE's temporal encoder, the LayerNorms before temporal attention, the classifier, and a class
    token that the ViT lacks stay as they are in `params`. Class tokens have a row in the position
    table, which goes the same way: the ViT's, a new one, or, without class token, none. Of other
    models, convolutions, their norms, relative positions, and a tokenizer of their channels stay as
    they are too.

    >>> params = model.init(key, clip)['params']
    >>> params, report = init_from_image_vit(model, params, vit, clip_shape=(32, 224, 224))

    Source: ViViT, section 3.4. Differs from the original implementation: FE inherits the class
    token.

    Args:
        model: of transformer blocks.
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
    if _POSITIONS in source and any(name.endswith('pos_embedding') for name in target):
        num_places = source[_POSITIONS].shape[1] - count_class_tokens(source)
        image_grid = _checked_grid(image_grid, num_places)
    rules = image_vit_rules(model.spec, source, tubelet_init, temporal_attention_init)
    return copy_parameters(
        model,
        target,
        source,
        (*NEW_HEAD, *rules) if 'head' in reinit else rules,
        clip_shape=clip_shape,
        grid=image_grid or (),
        tubelet_init=tubelet_init,
        unused=UNUSED,
    )


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
