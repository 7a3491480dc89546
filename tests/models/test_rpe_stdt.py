"""RPE-STDT and its ablations; what all models have in common is in `test_contract.py`."""

import functools
import re

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_jax.costs import count_macs, count_parameters, model_call, plain_form
from vivit_jax.models.registry import MODELS, create_model

TINY = {
    'num_classes': 5,
    'hidden_size': 16,
    'num_layers': 2,
    'num_heads': 2,
    'mlp_dim': 24,
    'tubelet_size': (1, 8, 8),
    'temporal_num_layers': 2,
    'temporal_num_heads': 2,
    'temporal_head_dim': 6,
    'subsample_layers': (0,),
}
SHAPE = (2, 6, 40, 16, 3)  # 6 frames of 5 x 2 places
TEMPORAL = 'TemporalTransformer/encoderblock_1'
TABLES = 'MultiHeadDotProductAttention_0/relative_position'

pytestmark = pytest.mark.usefixtures('exact_matmuls')


def _model(**keywords):
    return create_model('rpe_stdt', **{**TINY, **keywords})


@functools.cache
def _shapes(model):
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros(SHAPE))['params']
    return jax.tree.map(jnp.shape, flax.traverse_util.flatten_dict(params, sep='/'))


def _differences(model):
    """Shapes that differ from the default model's, by name; None: no such parameter."""
    before, after = _shapes(_model()), _shapes(model)
    return {
        name: after.get(name)
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    }


def _apply(model, params, clip, **keywords):
    # Without jit, operations are compiled once for all the tests.
    return model.apply({'params': params}, clip, **keywords)


def _rename(params, pattern, change):
    """Applies `change` to the parameters whose names match; a result of None removes them."""
    flat = flax.traverse_util.flatten_dict(params, sep='/')
    changed = {k: change(x) if re.fullmatch(pattern, k) else x for k, x in flat.items()}
    return flax.traverse_util.unflatten_dict(
        {name: x for name, x in changed.items() if x is not None}, sep='/'
    )


def _distance(found, expected):
    return np.linalg.norm(found - expected) / np.linalg.norm(expected)


@pytest.fixture
def clip(random_clip):
    return random_clip(SHAPE)


# These rows add to the rows in `vivit_jax.models.rpe_stdt.published`.
@pytest.mark.parametrize(
    ('keywords', 'parameters', 'gmac', 'linear_gmac'),
    [
        (MODELS['rpe_stdt'].PRESETS['spatial_only'], 85_876_325, 281.01, 269.56),
        (MODELS['rpe_stdt'].PRESETS['stdt_l8_full'], 88_149_605, 188.44, None),
        ({'rpe_terms': 'query', 'shared_heads': False}, 97_223_781, None, 271.1),
        ({'rpe_ratio': 0.5}, 96_778_341, 281.72, None),
        ({'rpe_ratio': 1.0}, 96_802_917, 282.65, None),
        ({'rpe_ratio': 2.0}, 96_888_933, 285.90, None),
        ({'rpe_ratio': 2.5}, 96_950_373, 288.22, None),
        ({'num_classes': 51}, 96_801_331, None, None),
        ({'subsample': 'conv'}, 96_839_781 + 2 * 1_770_240, None, None),
    ],
    ids=str,
)
def test_parameters_and_costs_are_those_of_the_specification(
    keywords, parameters, gmac, linear_gmac
):
    clip = jax.ShapeDtypeStruct((1, 16, 224, 224, 3), jnp.float32)
    call = model_call(plain_form(create_model('rpe_stdt', **keywords)), clip)
    assert count_parameters(call.params) == parameters
    macs, linear_macs = count_macs(call.function, *call.args)
    if gmac:
        assert macs / 1e9 == pytest.approx(gmac, rel=1e-3)
    if linear_gmac:
        assert linear_macs / 1e9 == pytest.approx(linear_gmac, rel=1e-3)


def _tables(encoder, **shapes):
    return {
        f'{encoder}/encoderblock_{layer}/{TABLES}/{name}': shape
        for layer in range(2)
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize(
    ('keywords', 'expected'),
    [
        ({'rpe_terms': 'query'}, _tables('SpatialTransformer', query_table=None)),
        ({'rpe_terms': 'key'}, _tables('SpatialTransformer', key_table=None)),
        ({'rpe_function': 'clip'}, {}),
        (
            {'rpe_method': 'euclidean'},
            _tables('SpatialTransformer', key_table=(1, 8, 8), query_table=(1, 8, 8)),
        ),
        (
            {'shared_heads': False},
            _tables('SpatialTransformer', key_table=(2, 8, 50), query_table=(2, 8, 50)),
        ),
        (
            {'rpe_ratio': 1.0},
            _tables('SpatialTransformer', key_table=(1, 8, 26), query_table=(1, 8, 26)),
        ),
        (
            {'pos_embed': 'absolute'},
            _tables('SpatialTransformer', key_table=None, query_table=None)
            | {'posembed_input/pos_embedding': (1, 61, 16)},
        ),
        (
            {'pos_embed': 'frame'},
            _tables('SpatialTransformer', key_table=None, query_table=None)
            | {'SpatialTransformer/posembed_input/pos_embedding': (1, 11, 16)},
        ),
        (
            {'temporal_pos': 'absolute'},
            _tables('TemporalTransformer', key_table=None, query_table=None)
            | {'TemporalTransformer/posembed_input/pos_embedding': (1, 7, 16)},
        ),
        (
            {'subsample': 'conv'},
            {
                'TemporalTransformer/subsample_0/kernel': (3, 16, 16),
                'TemporalTransformer/subsample_0/bias': (16,),
            },
        ),
        *(({'subsample': kind}, {}) for kind in ('max', 'avg', 'none')),
        ({'subsample_layers': (1,)}, {}),
    ],
)
def test_switch_changes_its_own_parameters(keywords, expected):
    # The suite of PyTorch twins tests that each switch changes the result.
    assert _differences(_model(**keywords)) == expected


@pytest.mark.parametrize(
    'keywords', [{'pos_embed': 'none'}, {'rpe_terms': 'none'}, {'temporal_pos': 'none'}], ids=str
)
def test_without_positions_is_with_tables_of_zeros(random_params, clip, keywords):
    encoder = 'TemporalTransformer' if 'temporal_pos' in keywords else 'SpatialTransformer'
    model = _model(**keywords)
    assert _differences(model) == _tables(encoder, key_table=None, query_table=None)

    params = random_params(_model(), clip)
    tables = f'{encoder}/.*_table'
    result = _apply(model, _rename(params, tables, lambda _: None), clip).logits
    zeros = _apply(_model(), _rename(params, tables, np.zeros_like), clip).logits
    np.testing.assert_allclose(result, zeros, rtol=1e-4, atol=1e-5)
    assert _distance(_apply(_model(), params, clip).logits, zeros) > 1e-3


def test_heavy_temporal_blocks_are_those_of_the_spatial_encoder():
    params = jax.eval_shape(
        _model(light=False, temporal_pos='none', pos_embed='none').init,
        jax.random.key(0),
        jnp.zeros(SHAPE),
    )['params']
    spatial, temporal = (params[f'{name}Transformer'] for name in ('Spatial', 'Temporal'))
    assert jax.tree.map(jnp.shape, temporal) == jax.tree.map(jnp.shape, spatial)


def test_light_temporal_blocks_have_narrow_heads_and_mlps():
    shapes = _shapes(_model())
    block = {
        name.removeprefix(f'{TEMPORAL}/'): shape
        for name, shape in shapes.items()
        if name.startswith(TEMPORAL) and 'LayerNorm' not in name
    }
    attention = 'MultiHeadDotProductAttention_0'
    assert block == {
        **{f'{attention}/{name}/kernel': (16, 2, 6) for name in ('query', 'key', 'value')},
        f'{attention}/out/kernel': (2, 6, 16),
        f'{attention}/out/bias': (16,),
        f'{TABLES}/key_table': (1, 6, 8),
        f'{TABLES}/query_table': (1, 6, 8),
        **{f'MlpBlock_0/Dense_{layer}/kernel': (16, 16) for layer in (0, 1)},
        **{f'MlpBlock_0/Dense_{layer}/bias': (16,) for layer in (0, 1)},
    }


# ViViT's second model is tested against its original.
@pytest.mark.parametrize('temporal_num_layers', [0, 2])
def test_plain_form_is_vivits_factorised_encoder(random_params, clip, temporal_num_layers):
    names = ('num_classes', 'hidden_size', 'num_layers', 'num_heads', 'mlp_dim', 'tubelet_size')
    sizes = {name: TINY[name] for name in names}
    vivit = create_model('vivit_fe', temporal_num_layers=temporal_num_layers, **sizes)
    model = _model(
        pos_embed='frame',
        temporal_pos='absolute',
        temporal='transformer' if temporal_num_layers else 'none',
        light=False,
        subsample='none',
    )
    assert _shapes(model) == _shapes(vivit)
    params = random_params(vivit, clip)
    found, expected = (_apply(m, params, clip) for m in (model, vivit))
    assert np.std(expected.logits) > 0.1
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.features, expected.features, rtol=1e-4, atol=1e-4)


def test_absolute_table_repeated_for_every_frame_is_that_of_a_frame(random_params, clip):
    one, all_frames = _model(pos_embed='frame'), _model(pos_embed='absolute')
    params = random_params(one, clip)
    expected = _apply(one, params, clip).logits
    table = params['SpatialTransformer'].pop('posembed_input')['pos_embedding']
    tiled = np.concatenate([table[:, :1], *6 * [table[:, 1:]]], axis=1)
    params['posembed_input'] = {'pos_embedding': tiled}
    found = _apply(all_frames, params, clip).logits
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ('keywords', 'sees_places', 'sees_frames'),
    [
        ({}, True, True),
        ({'pos_embed': 'none'}, False, True),
        ({'temporal_pos': 'none'}, True, False),
        ({'temporal_pos': 'absolute'}, True, True),
        ({'temporal_pos': 'none', 'subsample': 'none'}, True, False),
        ({'temporal_pos': 'none', 'subsample': 'conv'}, True, True),
        ({'pos_embed': 'absolute', 'temporal_pos': 'none'}, True, True),
        ({'pos_embed': 'frame', 'temporal': 'none'}, True, False),
    ],
    ids=str,
)
def test_only_positions_tell_the_order_of_places_and_frames(
    random_params, clip, keywords, sees_places, sees_frames
):
    model = _model(**keywords)
    params = random_params(model, clip)
    patches = clip.reshape(2, 6, 5, 8, 16, 3)
    orders = {
        'places': patches[:, :, jnp.array([3, 0, 4, 1, 2])].reshape(SHAPE),
        'frames': clip[:, jnp.array([3, 5, 0, 4, 1, 2])],
    }
    before = _apply(model, params, clip).logits
    for axis, sees_order in (('places', sees_places), ('frames', sees_frames)):
        difference = _distance(_apply(model, params, orders[axis]).logits, before)
        assert difference > 1e-4 if sees_order else difference < 1e-5, axis


@pytest.mark.parametrize('keywords', [{}, {'scan_layers': True, 'remat': 'dots'}], ids=str)
def test_captured_weights_are_those_of_both_encoders_and_leave_the_logits(
    random_params, clip, keywords
):
    model = _model(**keywords)
    params = random_params(model, clip)
    output = _apply(model, params, clip, capture_attention=True)

    def shapes(*by_layer):
        return {
            f'encoderblock_{layer}': {'MultiHeadDotProductAttention_0': {'tokens': shape}}
            for layer, shape in enumerate(by_layer)
        }

    assert jax.tree.map(np.shape, output.intermediates) == {
        'SpatialTransformer': shapes(*2 * [(2, 6, 2, 11, 11)]),
        'TemporalTransformer': shapes((2, 2, 7, 7), (2, 2, 4, 4)),
    }
    for weights in jax.tree.leaves(output.intermediates):
        assert weights.dtype == np.float32
        np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    plain = _apply(_model(), params, clip)
    assert plain.intermediates == {}
    np.testing.assert_allclose(output.logits, plain.logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('shape', [(1, 1, 8, 8, 3), (2, 5, 24, 8, 3), (1, 3, 16, 48, 3)])
@pytest.mark.parametrize('subsample', ['topk', 'max', 'conv'])
def test_any_grid_and_number_of_frames_will_do(shape, subsample):
    model = _model(subsample=subsample, subsample_layers=(0, 1), num_classes={'a': 2, 'b': 3})
    init = functools.partial(model.init_with_output, train=True)
    keys = {'params': jax.random.key(0), 'dropout': jax.random.key(1)}
    output, _ = jax.eval_shape(init, keys, jnp.zeros(shape))
    assert jax.tree.map(jnp.shape, output.logits) == {'a': (shape[0], 2), 'b': (shape[0], 3)}
    assert output.features.shape == (shape[0], 16)


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'temporal_num_layers': 0}, "temporal_num_layers=0 must be at least 1; temporal='none'"),
        ({'temporal_num_heads': 0}, 'temporal_num_heads=0 must be at least 1'),
        ({'temporal_head_dim': 0}, 'temporal_head_dim=0 must be at least 1'),
        ({'light': False, 'temporal_num_heads': 3}, 'temporal_num_heads=3 must divide .*16'),
        ({'rpe_ratio': 0.4}, 'rpe_ratio=0.4 must be at least 0.5'),
        ({'rpe_ratio': float('nan')}, 'rpe_ratio=nan must be a finite number'),
        ({'subsample_layers': (0, 2)}, r'subsample_layers=\(0, 2\) must be among .*_layers=2'),
        ({'attention_implementation': 'chunked'}, "'chunked' has no relative positions: take"),
    ],
)
def test_values_that_do_not_fit_are_an_error(values, message):
    with pytest.raises(ValueError, match=message):
        _model(**values)
    _model(attention_implementation='chunked', pos_embed='absolute')
    # The keywords of a part that does not exist need not fit.
    _model(subsample='none', subsample_layers=(5,))
    _model(temporal='none', temporal_num_layers=0)
