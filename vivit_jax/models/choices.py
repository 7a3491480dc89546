"""What the keywords of the systems after ViViT may be, without JAX."""

from collections.abc import Mapping

from vivit_jax.layers.clusters import FUNCTIONS, METHODS, TERMS

CONVIVIT_CHOICES: Mapping[str, tuple] = {
    'cnn_blocks': (0, 1, 2),
    'cnn_conv5': ('depthwise', 'dense'),
    'cnn_stride': (1, 2),
    'factorization': ('self_attention', 'dot_product'),
}

CTN_CHOICES: Mapping[str, tuple[str, ...]] = {
    'embed': ('video_to_tokens', 'tubelet'),
    'mapping': ('conv', 'linear'),
    'depthwise_init': ('identity', 'lecun'),
    'norm': ('pre', 'post'),
}

RPE_STDT_CHOICES: Mapping[str, tuple[str, ...]] = {
    'pos_embed': ('rpe', 'absolute', 'frame', 'none'),
    'rpe_terms': (*TERMS, 'none'),
    'rpe_function': FUNCTIONS,
    'rpe_method': METHODS,
    'temporal': ('transformer', 'none'),
    'temporal_pos': ('rpe', 'absolute', 'none'),
    'subsample': ('topk', 'max', 'avg', 'conv', 'none'),
}

# What else the thesis compares with, as keywords.
RPE_STDT_PRESETS: Mapping[str, Mapping[str, object]] = {
    'stdt_l8_full': {
        'num_layers': 8,
        'pos_embed': 'absolute',
        'temporal_pos': 'absolute',
        'light': False,
        'subsample': 'none',
    },
    'spatial_only': {'pos_embed': 'frame', 'temporal': 'none'},
}


def check_convivit(values: Mapping[str, object]):
    """Raises a ValueError where keywords of ConViViT do not fit each other."""
    if values['cnn_channels'] < 1:
        raise ValueError(f'cnn_channels={values["cnn_channels"]} must be at least 1')
    if any(size % values['cnn_stride'] for size in values['tubelet_size'][1:]):
        raise ValueError(
            f'cnn_stride={values["cnn_stride"]} must divide the patches of '
            f'tubelet_size={values["tubelet_size"]}'
        )


def check_ctn(values: Mapping[str, object]):
    """Raises a ValueError where keywords of CTN do not fit each other."""
    for name in ('stem_kernel', 'mapping_kernel'):
        if values[name] < 1 or values[name] % 2 == 0:
            raise ValueError(f'{name}={values[name]} must be odd, to have a center')
    for name in ('stem_stride', 'stem_channels'):
        if values[name] < 1:
            raise ValueError(f'{name}={values[name]} must be at least 1')
    strides = values['stem_t_stride']
    if len(strides) != 2 or min(strides) < 1:
        raise ValueError(
            f'stem_t_stride={strides} must be those of convolution and pooling, each from 1'
        )
    size = values['tubelet_size']
    reduction = stem_reduction(values['embed'], values['stem_stride'], values['stem_pool'], strides)
    if any(whole % part for whole, part in zip(size, reduction, strict=True)):
        raise ValueError(
            f'tubelet_size={size} must be a multiple of {reduction}, by which the stem makes '
            'the clip smaller'
        )


def stem_reduction(
    embed: str, stride: int, has_pool: bool, t_stride: tuple[int, int]
) -> tuple[int, int, int]:
    """How many frames and pixels of the clip are one of the tokenizer's, by keywords of CTN."""
    if embed == 'tubelet':
        return (1, 1, 1)
    time, pool_time = t_stride
    if not has_pool:
        return (time, stride, stride)
    return (time * pool_time, 2 * stride, 2 * stride)


def check_rpe_stdt(values: Mapping[str, object]):
    """Raises a ValueError where keywords of RPE-STDT do not fit each other."""
    if not values['rpe_ratio'] >= 0.5:
        raise ValueError(
            f'rpe_ratio={values["rpe_ratio"]} must be at least 0.5, which tells three offsets apart'
        )
    if values['temporal'] == 'none':
        return
    for name in ('temporal_num_layers', 'temporal_num_heads', 'temporal_head_dim'):
        if values[name] < 1:
            raise ValueError(
                f"{name}={values[name]} must be at least 1; temporal='none' goes without"
            )
    width, heads = values['hidden_size'], values['temporal_num_heads']
    if not values['light'] and width % heads:
        raise ValueError(f'temporal_num_heads={heads} must divide hidden_size={width}')
    layers = values['subsample_layers'] if values['subsample'] != 'none' else ()
    if set(layers) - set(range(values['temporal_num_layers'])):
        raise ValueError(
            f'subsample_layers={layers} must be among the '
            f'temporal_num_layers={values["temporal_num_layers"]}, counted from zero'
        )
