"""Inflates a ViT for images into a model for videos.

Source: ViViT (arXiv 2103.15691), section 3.4.
"""

import math

import flax.linen as nn
import flax.traverse_util

from vivit_jax.errors import UserError
from vivit_jax.weights.copy_rules import NEW_HEAD, TEMPORAL_ATTENTION_INITS, UNUSED, image_vit_rules
from vivit_jax.weights.copying import copy_parameters
from vivit_jax.weights.positions import PositionResize, count_class_tokens, format_grid
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
    position_resize: PositionResize = 'linear',
) -> tuple[dict, Report]:
    """Puts the parameters of an image ViT into a model for videos.

    Parameters that both have are copied; the ViT's kernel and positions are extended in time. The
    others keep their values in `params`: FE's temporal encoder, the LayerNorms before temporal
    attention, the classifier, and a class token if the ViT has none; in other models than ViViT
    also convolutions, their norms, relative positions, and a tokenizer that reads the channels of
    convolutions. The class token's row in the position table comes from where the token comes from.

    >>> params = model.init(key, clip)['params']
    >>> params, report = init_from_image_vit(model, params, vit, clip_shape=(32, 224, 224))

    Source: ViViT, section 3.4. Differs from the original implementation: FE inherits the class
    token.

    Args:
        model: a model made of transformer blocks.
        params: the model's freshly initialized parameters.
        image_vit: the parameters of a ViT under the names of `vivit_joint`, with a kernel
            [h w c d]. `cls` may be missing; a classifier `output_projection` or `head` and
            `pre_logits` are left out.
        clip_shape: (t, h, w), in frames and pixels, of the clips that `params` were made for.
        tubelet_init: a tubelet of t frames gets the ViT's kernel E at frame t // 2 and zeros
            elsewhere (`'central_frame'`), or E / t at every frame (`'filter_inflation'`), or keeps
            its fresh kernel (`'random'`).
        temporal_attention_init: the start of FSA's temporal attention. `'zero'`: the output
            projection is zero, so that at first each block computes the same as the ViT's block;
            queries, keys and values stay random, because with zeros there too no kernel would ever
            get a gradient. `'pretrained'`: a copy of the ViT's attention. `'fresh'`: the values in
            `params`.
        image_grid: (h, w) of the ViT's position table; a square if None.
        reinit: the classifier is always new. With `('head',)` that is expected; with `()` it is an
            error.
        position_resize: how positions are interpolated for other images than the ViT's, see
            `resize_positions`.

    Returns:
        New parameters with the types of `params`, which share no memory with `image_vit`; and a
        report of what became of each.

    Raises:
        UserError: a choice is unknown; the ViT's position table does not have the size
            `image_grid`; or the ViT does not fit, in which case the message lists every problem.
        ValueError: `clip_shape` does not divide into tubelets, or `params` were made for another.
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
        position_resize=position_resize,
    )


def _checked_grid(grid: tuple[int, int] | None, num_places: int) -> tuple[int, int]:
    grid = tuple(grid or (math.isqrt(num_places),) * 2)
    if math.prod(grid) != num_places:
        raise UserError(
            f'image_grid={format_grid(grid)} does not have the {num_places} places of the '
            'position table of the ViT: give (h, w), the number of patches along height and width '
            'of its images'
        )
    return grid


def _check_choice(keyword: str, value: str, choices: tuple[str, ...]):
    if value not in choices:
        raise UserError(f'{keyword}={value!r} must be one of {choices}')
