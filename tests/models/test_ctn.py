"""CTN: its own layers and switches."""

import re

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_jax.costs import count_macs, count_parameters, model_call, plain_form
from vivit_jax.models.registry import create_model

pytestmark = pytest.mark.usefixtures('exact_matmuls')


def _flat(tree):
    return flax.traverse_util.flatten_dict(tree, sep='/')


def _shapes(model, shape=(2, 4, 16, 16, 3)):
    clip = jax.ShapeDtypeStruct(shape, jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), clip)['params']
    return {name: x.shape for name, x in _flat(params).items()}


# All numbers follow from the equations, by a calculation that shares no code with the package.
@pytest.mark.parametrize(
    ('keywords', 'frames', 'parameters', 'gmac'),
    [
        ({}, 8, 86_218_000, 82.15),
        ({}, 16, 86_218_000, 373.74 / 2),
        ({'embed': 'tubelet', 'position': 'learned'}, 8, 87_181_104, 158.3 / 2),
        ({'embed': 'tubelet', 'position': 'learned'}, 16, 87_783_216, 361.76 / 2),
        ({'position': 'learned'}, 8, 86_820_880, 164.3 / 2),
        (
            {'stem_stride': 4, 'stem_pool': False, 'stem_bn': False, 'stem_channels': 64},
            8,
            87_037_360,
            None,
        ),
        (
            {
                'stem_kernel': 5,
                'stem_stride': 4,
                'stem_pool': False,
                'stem_bn': False,
                'stem_channels': 64,
            },
            8,
            86_995_504,
            None,
        ),
        ({'stem_bn': False}, 8, 86_217_968, None),
        ({'mapping': 'linear'}, 8, 85_913_872, None),
        ({'mapping_bn': False}, 8, 86_162_704, None),
        ({'mapping_kernel': 5}, 8, 86_660_368, None),
        ({'tubelet_size': (1, 16, 16)}, 8, 85_824_784, 365.9 / 2),
        ({'stem_t_stride': (2, 2), 'tubelet_size': (8, 16, 16)}, 8, 86_218_000, 19.3),
    ],
    ids=str,
)
def test_costs_equal_specification(keywords, frames, parameters, gmac):
    model = plain_form(create_model('ctn', **keywords))
    call = model_call(model, jax.ShapeDtypeStruct((1, frames, 224, 224, 3), jnp.float32))
    assert count_parameters(call.params) == parameters
    if gmac is not None:
        macs, _ = count_macs(call.function, *call.args)
        assert macs / 1e9 == pytest.approx(gmac, rel=1e-3)


def test_linear_tubelets_are_vivit_joint(create_tiny, random_clip, random_params):
    keywords = {'embed': 'tubelet', 'mapping': 'linear', 'position': 'learned'}
    model, vivit = create_tiny('ctn', **keywords), create_tiny('vivit_joint')
    assert _shapes(model) == _shapes(vivit)
    clip = random_clip()
    variables = {'params': random_params(vivit, clip)}
    np.testing.assert_array_equal(
        model.apply(variables, clip).logits, vivit.apply(variables, clip).logits
    )


# Regular expressions of parameters with another shape, of removed and of new parameters.
@pytest.mark.parametrize(
    ('keywords', 'changed', 'missing', 'new'),
    [
        ({'stem_kernel': 5}, 'stem/conv/kernel', '', ''),
        ({'stem_channels': 5}, 'stem/.*|embedding/kernel', '', ''),
        ({'stem_bn': False}, '', 'stem/norm/.*', 'stem/conv/bias'),
        ({'stem_pool': False}, 'embedding/kernel', '', ''),
        ({'stem_pool': False, 'stem_stride': 4}, '', '', ''),
        ({'stem_t_stride': (2, 1)}, 'embedding/kernel', '', ''),
        ({'stem_t_stride': (1, 2)}, 'embedding/kernel', '', ''),
        ({'embed': 'tubelet'}, 'embedding/kernel', 'stem/.*', ''),
        ({'position': 'learned'}, '', '', 'Transformer/posembed_input/pos_embedding'),
        ({'position': 'sincos3d'}, '', '', ''),
        ({'mapping': 'linear'}, '', '.*/(query|key|value)_local/.*', ''),
        ({'mapping_kernel': 5, 'depthwise_init': 'lecun'}, '.*_local/conv/kernel', '', ''),
        ({'mapping_bn': False}, '', '.*_local/norm/.*', ''),
        ({'depthwise_init': 'lecun'}, '', '', ''),
        ({'norm': 'post'}, '', 'Transformer/encoder_norm/.*', ''),
    ],
    ids=str,
)
def test_switch_changes_its_own_parameters(create_tiny, keywords, changed, missing, new):
    # The suite of PyTorch twins tests that each switch changes the features.
    plain, other = _shapes(create_tiny('ctn')), _shapes(create_tiny('ctn', **keywords))
    common = plain.keys() & other.keys()
    for names, pattern in (
        ({name for name in common if plain[name] != other[name]}, changed),
        (plain.keys() - other.keys(), missing),
        (other.keys() - plain.keys(), new),
    ):
        every = plain.keys() | other.keys()
        assert names == {name for name in every if re.fullmatch(pattern, name)}


def test_maps_start_as_linear_ones_up_to_the_epsilon_of_batch_norm(create_tiny, random_clip):
    clip = random_clip()
    conv, linear = (
        create_tiny('ctn', num_layers=1),
        create_tiny('ctn', num_layers=1, mapping='linear'),
    )
    variables = conv.init(jax.random.key(0), clip)
    flat = {name: x for name, x in _flat(variables['params']).items() if '_local' not in name}
    params = flax.traverse_util.unflatten_dict(flat, sep='/')
    one = conv.apply(variables, clip).features
    stats = {'stem': variables['batch_stats']['stem']}
    other = linear.apply({'params': params, 'batch_stats': stats}, clip).features
    difference = np.abs(one - other).max()
    assert 0 < difference < 3e-5  # 1 / sqrt(1 + 1e-5) is 5e-6 below 1


@pytest.mark.parametrize('side', ['query', 'key', 'value'])
def test_each_map_has_a_convolution_of_its_own(create_tiny, random_clip, random_variables, side):
    model = create_tiny('ctn')
    variables = random_variables(model, random_clip(), scale=0.8)
    apply = jax.jit(model.apply)
    before = apply(variables, random_clip()).logits
    flat = _flat(variables['params'])
    attention = 'Transformer/encoderblock_0/MultiHeadDotProductAttention_0'
    name = f'{attention}/{side}_local/conv/kernel'
    flat[name] = 2 * flat[name]
    params = flax.traverse_util.unflatten_dict(flat, sep='/')
    after = apply({**variables, 'params': params}, random_clip()).logits
    assert np.abs(after - before).max() > 1e-3


def test_post_norm_features_are_normalized_tokens(create_tiny, random_clip, random_variables):
    model = create_tiny('ctn', norm='post')
    variables = random_variables(model, random_clip())
    norm = variables['params']['Transformer']['encoderblock_1']['LayerNorm_1']
    features = model.apply(variables, random_clip()).features
    normal = (np.asarray(features) - norm['bias']) / norm['scale']
    np.testing.assert_allclose(normal.mean(-1), 0, atol=1e-3)
    np.testing.assert_allclose(normal.std(-1), 1, rtol=1e-3)


@pytest.mark.parametrize(('position', 'sees_order'), [('none', False), ('learned', True)])
def test_only_positions_tell_the_order_of_frames_without_a_stem(
    create_tiny, random_clip, random_variables, position, sees_order
):
    model = create_tiny('ctn', embed='tubelet', tubelet_size=(1, 8, 8), position=position)
    clip, apply = random_clip(), jax.jit(model.apply)
    variables = random_variables(model, clip)
    before, after = (apply(variables, x).logits for x in (clip, clip[:, np.array([2, 0, 3, 1])]))
    difference = np.linalg.norm(after - before) / np.linalg.norm(before)
    assert difference > 1e-3 if sees_order else difference < 1e-5
