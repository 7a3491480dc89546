"""What the parameters of a model start from in the weights of another one.

A rule is a pattern of names in the target, and the name in the source that they are copied from, or
what else becomes of them; the first full match counts. All models call the same thing by the same
name, so there is one table for all.
"""

import re
from collections.abc import Collection

from vivit_jax.weights.positions import count_class_tokens

FRESH, ZERO = '(fresh)', '(zero)'

Rules = tuple[tuple[str, str], ...]

SAME: Rules = ((r'(.+)', r'\1'),)
NEW_HEAD: Rules = ((r'output_projection.+', FRESH),)

# What neither a ViT for images nor another model has.
_OWN: Rules = (
    (r'(cls_)?TemporalTransformer.*', FRESH),
    (r'(stem|cnnblock_\d+|embedding_norm|embedding_position)/.+', FRESH),
    (r'.+/(\w+_local|relative_position)/.+', FRESH),
)

_FROM_IMAGE_VIT: Rules = (
    (r'embedding/(\w+)', r'embedding/\1'),
    (r'cls(_SpatialTransformer)?', r'cls'),
    (
        r'Transformer/(\w+)/(LayerNorm|MultiHeadDotProductAttention)_space/(.+)',
        r'Transformer/\1/\2_0/\3',
    ),
    (r'Transformer/(\w+)/LayerNorm_mlp/(.+)', r'Transformer/\1/LayerNorm_1/\2'),
    (r'Transformer/(\w+)/MlpBlock/(.+)', r'Transformer/\1/MlpBlock_0/\2'),
    (r'.+_time/.+', FRESH),
    (r'(Spatial)?Transformer/(.+)', r'Transformer/\2'),
    (r'(posembed_input/.+)', r'Transformer/\1'),
)

_TEMPORAL_ATTENTION: dict[str, Rules] = {
    'zero': ((r'.+_time/out/.+', ZERO),),
    'pretrained': (
        (
            r'Transformer/(\w+)/(MultiHeadDotProductAttention)_time/(.+)',
            r'Transformer/\1/\2_0/\3',
        ),
    ),
    'fresh': (),
}
TEMPORAL_ATTENTION_INITS = tuple(_TEMPORAL_ATTENTION)

_FROM_VIVIT: Rules = ((r'(posembed_input/.+)', r'SpatialTransformer/\1'), *SAME)

# Models and the ViViTs that they extend.
EXTENDED = {
    'convivit': ('vivit_fsa', 'vivit_fdp'),
    'rpe_stdt': ('vivit_fe',),
    'ctn': ('vivit_joint',),
}

# What a source may have in vain, as shell-style patterns.
UNUSED = (
    'output_projection*',
    'head/*',
    'pre_logits/*',
    'cls*',  # of a model that has the mean over tokens, or another temporal encoder
    'TemporalTransformer/*',
    '*posembed_input/*',  # where positions are not learned
    '*Transformer/encoder_norm/*',  # with norm='post'
)


def image_vit_rules(
    target: Collection[str],
    source: Collection[str],
    tubelet_init: str,
    temporal_attention_init: str,
) -> Rules:
    """Those for a ViT for images, by the names of parameters; see `init_from_image_vit`."""
    random = ((r'embedding/kernel', FRESH),) if tubelet_init == 'random' else ()
    return (
        *random,
        *_missing(target, source),
        *_TEMPORAL_ATTENTION[temporal_attention_init],
        *_FROM_IMAGE_VIT,
    )


def vivit_rules(target: Collection[str], source: Collection[str]) -> Rules:
    """Those for the ViViT that a model extends, by the names of parameters."""
    return (*_missing(target, source), *_FROM_VIVIT)


def _missing(target: Collection[str], source: Collection[str]) -> Rules:
    rules = _OWN
    if any(re.match('stem/|embedding_norm/', name) for name in target):
        rules = (*rules, (r'embedding/.+', FRESH))  # of other channels, or before a norm
    if not count_class_tokens(source):
        rules = (*rules, (r'cls.*', FRESH))
    return rules
