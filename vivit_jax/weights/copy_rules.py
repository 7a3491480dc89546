"""Rules that say from which parameter of other weights each parameter of a model is copied.

A rule is a pair of strings: a pattern of names in the target, and the name in the source, or
`FRESH` or `ZERO`. The first rule whose pattern matches the full name counts. All models use the
same names for the same parts, so that one table serves all of them.
"""

from collections.abc import Collection

from vivit_jax.layers.specification import Specification
from vivit_jax.weights.positions import count_class_tokens

FRESH, ZERO = '(fresh)', '(zero)'

Rules = tuple[tuple[str, str], ...]

SAME: Rules = ((r'(.+)', r'\1'),)
NEW_HEAD: Rules = ((r'output_projection.+', FRESH),)

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

_FROM_EXTENDED: Rules = ((r'(posembed_input/.+)', r'SpatialTransformer/\1'), *SAME)

# Parameters that a source may have although the target does not, as shell-style patterns.
UNUSED = (
    'output_projection*',
    'head/*',
    'pre_logits/*',
    'cls*',  # the target pools by the mean over tokens, or has another temporal encoder
    'TemporalTransformer/*',
    '*posembed_input/*',  # the target's positions are not learned
    'conv*_block/*',  # the target has other blocks over units
    '*Transformer/encoder_norm/*',  # the target has norm='post'
)


def image_vit_rules(
    spec: Specification, source: Collection[str], tubelet_init: str, temporal_attention_init: str
) -> Rules:
    """Rules for a model that starts from an image ViT; see `init_from_image_vit`.

    Args:
        spec: the specification of the model.
        source: the names of the ViT's parameters.
        tubelet_init, temporal_attention_init: see `init_from_image_vit`.
    """
    random = ((r'embedding/kernel', FRESH),) if tubelet_init == 'random' else ()
    return (
        *random,
        *_missing(spec, source),
        *_TEMPORAL_ATTENTION[temporal_attention_init],
        *_FROM_IMAGE_VIT,
    )


def extended_model_rules(spec: Specification, source: Collection[str]) -> Rules:
    """Rules for a model that starts from a model that it extends, see `Specification.EXTENDS`.

    Args:
        spec: the specification of the model.
        source: the names of the parameters of the extended model.
    """
    return (*_missing(spec, source), *_FROM_EXTENDED)


def _missing(spec: Specification, source: Collection[str]) -> Rules:
    """Rules for parameters that the source lacks: they stay fresh."""
    rules = tuple((pattern, FRESH) for pattern in spec.own_parameters)
    return rules if count_class_tokens(source) else (*rules, (r'cls.*', FRESH))
