"""The attention weights that a model returns on request."""

import jax
import numpy as np
import pytest

from vivit_jax.models.registry import list_models

VIVITS = [name for name in list_models() if name.startswith('vivit')]

# Shapes by encoder, attention and axis, for clips [2 6 16 24 3], which have 3 times and 6 places.
SHAPES = {
    'vivit_joint': {'Transformer': {'0': {'tokens': (2, 2, 19, 19)}}},
    'vivit_fe': {
        'SpatialTransformer': {'0': {'tokens': (2, 3, 2, 7, 7)}},
        'TemporalTransformer': {'0': {'tokens': (2, 2, 4, 4)}},
    },
    'vivit_fsa': {
        'Transformer': {'space': {'space': (2, 3, 2, 6, 6)}, 'time': {'time': (2, 6, 2, 3, 3)}}
    },
    'vivit_fdp': {'Transformer': {'0': {'time': (2, 6, 1, 3, 3), 'space': (2, 3, 1, 6, 6)}}},
}

pytestmark = pytest.mark.usefixtures('exact_matmuls')


@pytest.fixture
def clip(random_clip):
    return random_clip((2, 6, 16, 24, 3))


def _num_layers(encoder):
    return 1 if encoder == 'TemporalTransformer' else 2


@pytest.mark.parametrize('name', VIVITS)
def test_captured_weights_are_distributions_of_documented_shapes(
    create_tiny, random_params, clip, name
):
    model = create_tiny(name)
    variables = {'params': random_params(model, clip)}
    output = model.apply(variables, clip, capture_attention=True)
    expected = {
        encoder: {
            f'encoderblock_{layer}': {
                f'MultiHeadDotProductAttention_{suffix}': shapes
                for suffix, shapes in attentions.items()
            }
            for layer in range(_num_layers(encoder))
        }
        for encoder, attentions in SHAPES[name].items()
    }
    assert jax.tree.map(np.shape, output.intermediates) == expected
    for weights in jax.tree.leaves(output.intermediates):
        assert weights.dtype == np.float32
        assert (weights >= 0).all()
        np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
        assert weights.std() > 0.01


@pytest.mark.parametrize('keywords', [{}, {'attention_implementation': 'chunked'}], ids=str)
@pytest.mark.parametrize('name', VIVITS)
def test_capture_leaves_the_logits_and_is_empty_when_off(
    create_tiny, random_params, clip, name, keywords
):
    model = create_tiny(name, num_layers=1, **keywords)
    variables = {'params': random_params(model, clip)}
    plain, captured = (
        model.apply(variables, clip, capture_attention=capture) for capture in (False, True)
    )
    assert plain.intermediates == {}
    assert captured.intermediates
    np.testing.assert_allclose(captured.logits, plain.logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name', VIVITS)
def test_scan_and_remat_capture_what_the_loop_does(create_tiny, random_params, clip, name):
    loop, scan = create_tiny(name), create_tiny(name, scan_layers=True, remat='block')
    variables = {'params': random_params(loop, clip)}
    expected, captured = (
        model.apply(variables, clip, capture_attention=True).intermediates for model in (loop, scan)
    )
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), captured, expected
    )


@pytest.mark.parametrize('name', VIVITS)
def test_captured_weights_of_the_first_block_equal_the_formula(
    create_tiny, random_params, clip, name
):
    model = create_tiny(name, num_layers=1)
    params = random_params(model, clip)
    output, state = model.apply(
        {'params': params},
        clip,
        capture_attention=True,
        capture_intermediates=lambda module, _: (module.name or '').startswith('LayerNorm'),
    )
    for encoder, attentions in SHAPES[name].items():
        block = params[encoder]['encoderblock_0']
        for suffix, axes in attentions.items():
            norms = state['intermediates'][encoder]['encoderblock_0'][f'LayerNorm_{suffix}']
            tokens = np.float64(norms['__call__'][0])
            attention = block[f'MultiHeadDotProductAttention_{suffix}']
            query, key = (
                np.einsum('...nd,dkc->...nkc', tokens, attention[side]['kernel'])
                + attention[side]['bias']
                for side in ('query', 'key')
            )
            captured = output.intermediates[encoder]['encoderblock_0']
            first_head = 0
            for axis, shape in axes.items():
                heads = slice(first_head, first_head + shape[-3])
                first_head += shape[-3]
                letters = 'btnkc,bunkc->bnktu' if axis == 'time' else '...qkc,...nkc->...kqn'
                scores = np.einsum(letters, query[..., heads, :], key[..., heads, :])
                weights = np.exp(scores / np.sqrt(8))
                np.testing.assert_allclose(
                    captured[f'MultiHeadDotProductAttention_{suffix}'][axis],
                    weights / weights.sum(-1, keepdims=True),
                    rtol=1e-3,
                    atol=1e-5,
                )


# Query, key, value, out, scores and their mixture of each attention; two of the MLP.
@pytest.mark.parametrize(
    ('name', 'products_per_block', 'num_blocks'),
    [('vivit_joint', 8, 2), ('vivit_fe', 8, 3), ('vivit_fsa', 14, 2), ('vivit_fdp', 10, 2)],
)
def test_program_has_no_trace_of_capture_when_off(
    create_tiny, random_params, clip, name, products_per_block, num_blocks
):
    model = create_tiny(name)
    variables = {'params': random_params(model, clip)}
    jaxpr = jax.make_jaxpr(model.apply)(variables, clip)
    assert len(jaxpr.out_avals) == 2  # logits and features
    tokenizer_and_classifier = 2
    expected = products_per_block * num_blocks + tokenizer_and_classifier
    assert str(jaxpr).count('dot_general[') == expected
