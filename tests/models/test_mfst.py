"""What is MFST's own: central differences, k-NN within frames, scales of time, residuals."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_jax.layers.convolution import convolution
from vivit_jax.layers.grid import sincos_sequence
from vivit_jax.models.mfst.model import (
    ConvBlock,
    Inception,
    Stage,
    Stem,
    TemporalTransformer,
    central_difference,
    pool_residual,
)
from vivit_jax.models.registry import specify

SIZES = {
    'hidden_size': 16,
    'num_layers': 1,
    'num_heads': 2,
    'head_dim': 4,
    'mlp_dim': 8,
    'stem_channels': 8,
    'tubelet_size': (1, 4, 4),
    'scales': (1, 2),
    'num_classes': 5,
}

pytestmark = pytest.mark.usefixtures('exact_matmuls')


def _random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _differences(x, w, strides, kind, theta):
    """`y(p) = θ Σ w_n (x(p+n) - x(p)) + (1-θ) Σ w_n x(p+n)`, tap by tap; differences in time only
    for `'cdc_t'`.
    """
    sizes = w.shape[:3]
    pads = [(size // 2, size // 2) for size in sizes]
    padded = np.pad(x, ((0, 0), *pads, (0, 0)))
    centers = [range(0, size, stride) for size, stride in zip(x.shape[1:4], strides, strict=True)]
    result = np.zeros((len(x), *map(len, centers), w.shape[-1]))
    for place in np.ndindex(*map(len, centers)):
        p = [center[i] for center, i in zip(centers, place, strict=True)]
        for n in np.ndindex(*sizes):
            seen = padded[:, p[0] + n[0], p[1] + n[1], p[2] + n[2]]
            is_compared = kind == 'cdc_st' or (kind == 'cdc_t' and n[0] != sizes[0] // 2)
            if is_compared:
                center = x[:, p[0], p[1], p[2]]
                seen = theta * (seen - center) + (1 - theta) * seen
            result[:, *place] += seen @ w[n]
    return result


@pytest.mark.parametrize('theta', [0.0, 0.6, 1.0])
@pytest.mark.parametrize('kind', ['cdc_st', 'cdc_t', 'vanilla'])
@pytest.mark.parametrize(
    ('sizes', 'strides'), [((3, 3, 3), (1, 1, 1)), ((3, 5, 5), (1, 2, 2)), ((5, 3, 3), (2, 2, 1))]
)
def test_central_differences_are_those_of_every_tap(sizes, strides, kind, theta):
    x, w = _random(2, 4, 5, 6, 2), _random(*sizes, 2, 3)
    fold = functools.partial(central_difference, kind=kind, theta=theta)
    conv = convolution(3, sizes, fold=fold, strides=strides, use_bias=False)
    found = conv.apply({'params': {'kernel': w}}, x)
    np.testing.assert_allclose(
        found, _differences(x, w, strides, kind, theta), rtol=1e-4, atol=1e-4
    )


def test_differences_cost_one_convolution():
    def count(kind):
        fold = functools.partial(central_difference, kind=kind, theta=0.6)
        conv = convolution(3, (3, 3, 3), fold=fold, use_bias=False)
        x = jnp.zeros((1, 4, 5, 6, 2))
        program = jax.jit(conv.apply).trace({'params': {'kernel': jnp.zeros((3, 3, 3, 2, 3))}}, x)
        return program.lower(lowering_platforms=('tpu',)).as_text().count('stablehlo.convolution')

    assert count('cdc_st') == count('vanilla') == 1


def _variables(module, *inputs, **keywords):
    """Random parameters and running statistics of a module, and the module compiled."""
    init = functools.partial(module.init, **keywords)
    shapes, rng = jax.eval_shape(init, jax.random.key(0), *inputs), np.random.default_rng(0)
    variables = jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), shapes)
    if 'batch_stats' in variables:
        variables['batch_stats'] = jax.tree.map(np.abs, variables['batch_stats'])
    return variables, jax.jit(functools.partial(module.apply, **keywords))


def test_theta_of_zero_is_vanilla():
    clip = _random(1, 4, 16, 12, 3)

    def stem(**keywords):
        variables, apply = _variables(Stem(specify('mfst', **SIZES, **keywords)), clip, train=False)
        return apply(variables, clip)

    vanilla = stem(stem_rgb='vanilla')
    for kind in ('cdc_st', 'cdc_t'):
        np.testing.assert_allclose(stem(stem_rgb=kind, theta=0.0), vanilla, rtol=1e-5, atol=1e-6)
        assert np.abs(stem(stem_rgb=kind) - vanilla).max() > 1e-3


@pytest.mark.parametrize(('modality', 'kind'), [('rgb', 'cdc_t'), ('depth', 'vanilla')])
def test_stem_follows_the_modality(modality, kind):
    spec = specify('mfst', modality=modality, stem_rgb='cdc_t', stem_depth='vanilla')
    assert spec.stem == kind
    assert specify('mfst', modality=modality).stem == {'rgb': 'cdc_st', 'depth': 'cdc_t'}[modality]


@pytest.mark.parametrize(
    ('tubelet', 'strides'),
    [
        ((1, 16, 16), ((1, 2, 2), (1, 2, 2), (1, 2, 2))),
        ((2, 8, 16), ((2, 2, 2), (1, 2, 2), (1, 1, 2))),
        ((1, 4, 2), ((1, 2, 1), (1, 1, 1), (1, 1, 1))),
    ],
)
def test_stem_and_first_pooling_make_the_tokens(tubelet, strides):
    spec = specify('mfst', **{**SIZES, 'tubelet_size': tubelet})
    assert spec.stem_strides == strides
    clip = jax.ShapeDtypeStruct((1, 4, 32, 48, 3), jnp.float32)
    grid = spec.grid(clip.shape[1:4])
    assert grid == tuple(size // part for size, part in zip(clip.shape[1:4], tubelet, strict=True))
    stem = functools.partial(Stem(spec).init_with_output, jax.random.key(0), train=False)
    maps, _ = jax.eval_shape(stem, clip)
    # The first stage halves height and width.
    assert maps.shape == (1, grid[0], 2 * grid[1], 2 * grid[2], 24)


@pytest.mark.parametrize('stage', range(4))
def test_stages_halve_height_and_width_upwards(stage):
    spec = specify('mfst', **SIZES, num_stages=4)
    inputs = {0: 24, 1: 8, 2: 8, 3: 16}[stage]
    assert spec.stage_inputs(stage) == inputs
    x = jax.ShapeDtypeStruct((1, 4, 7, 2, inputs), jnp.float32)
    module = functools.partial(Stage(spec, stage).init_with_output, jax.random.key(0))
    (maps, captured), _ = jax.eval_shape(
        functools.partial(module, train=False, capture_attention=True), x
    )
    assert maps.shape == (1, 4, 4, 1, 8 if stage < 2 else 16)
    shapes = {name: jax.tree.leaves(weights)[0].shape for name, weights in captured.items()}
    assert shapes == {
        'SpatialTransformer': (1, 4, 2, 4, 4),
        'TemporalTransformer/1': (1, 4, 2, 4, 4),
        'TemporalTransformer/2': (1, 4, 2, 2, 2),
    }


@pytest.mark.parametrize(('knn_spatial', 'knn_temporal'), [(True, False), (False, True)])
def test_neighbours_are_counted_where_the_switches_say(knn_spatial, knn_temporal):
    switches = {'knn_ratio': 0.5, 'knn_spatial': knn_spatial, 'knn_temporal': knn_temporal}
    stage, x = Stage(specify('mfst', **SIZES, **switches), 0), _random(1, 4, 8, 8, 24)
    variables, apply = _variables(stage, x, train=False, capture_attention=True)
    _, captured = apply(variables, x)

    def neighbours(name):
        (weights,) = jax.tree.leaves(captured[name])
        return set(np.ravel((weights > 0).sum(-1)).tolist())

    assert neighbours('SpatialTransformer') == {8 if knn_spatial else 16}
    assert neighbours('TemporalTransformer/1') == {2 if knn_temporal else 4}
    assert neighbours('TemporalTransformer/2') == {1 if knn_temporal else 2}


def _temporal(tokens, **keywords):
    spec = specify('mfst', **{**SIZES, **keywords}).transformer(0, is_near=False)
    return _variables(TemporalTransformer(spec), tokens, train=False, capture_attention=False)


@pytest.mark.parametrize('weight_shared', [True, False])
def test_temporal_transformer_is_the_mean_of_its_scales(weight_shared):
    tokens = _random(2, 12, 3, 8)
    variables, apply = _temporal(tokens, scales=(1, 3, 4), weight_shared=weight_shared)
    params = variables['params']
    assert sorted(params) == ['scales_0'] if weight_shared else ['scales_0', 'scales_1', 'scales_2']
    _, single = _temporal(tokens, scales=(1,))
    expected = 0
    for index, scale in enumerate((1, 3, 4)):
        own = {'scales_0': params['scales_0' if weight_shared else f'scales_{index}']}
        steps = [tokens[:, i : i + scale].mean(axis=1) for i in range(0, 12, scale)]
        encoded = np.asarray(single({'params': own}, np.stack(steps, axis=1))[0])
        expected = expected + np.stack([encoded[:, i // scale] for i in range(12)], axis=1) / 3
    np.testing.assert_allclose(apply(variables, tokens)[0], expected, rtol=1e-4, atol=1e-5)


def test_places_of_a_frame_do_not_mix_over_time():
    tokens = _random(1, 4, 3, 8)
    variables, apply = _temporal(tokens)
    changed = tokens.copy()
    changed[:, 1, 2] += 1
    difference = apply(variables, changed)[0] - apply(variables, tokens)[0]
    moved = np.abs(difference).max(axis=(0, 1, 3)) > 1e-5
    np.testing.assert_array_equal(moved, [False, False, True])


def test_positions_alternate_sines_and_cosines():
    table = sincos_sequence(5, 6)
    for place in range(5):
        for i in range(3):
            angle = place / 10000 ** (2 * i / 6)
            np.testing.assert_allclose(table[place, 2 * i], np.sin(angle), atol=1e-6)
            np.testing.assert_allclose(table[place, 2 * i + 1], np.cos(angle), atol=1e-6)


def test_residual_is_the_mean_of_four_places_with_zeros_around():
    x = _random(1, 2, 3, 5, 4)
    found = np.asarray(pool_residual(jnp.asarray(x), 6))
    assert found.shape == (1, 2, 2, 3, 6)
    for row, column in np.ndindex(2, 3):
        block = x[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        expected = block.sum(axis=(2, 3)) / 4
        np.testing.assert_allclose(found[:, :, row, column, :4], expected, rtol=1e-5, atol=1e-6)
    assert not found[..., 4:].any()


@pytest.mark.parametrize('residual', ['pool', 'proj', 'none'])
@pytest.mark.parametrize('index', [0, 2])
def test_residual_is_the_input_of_every_stage_but_the_first(residual, index):
    stage = Stage(specify('mfst', **SIZES, stage_residual=residual), index)
    x = _random(1, 4, 3, 5, 8)
    variables, apply = _variables(stage, x, train=False, capture_attention=False)
    shortcut = variables['params'].get('shortcut')
    assert (shortcut is not None) == (residual == 'proj' and index > 0)
    # Without their parameters, the transformers return the positions.
    variables['params'] = {
        name: value if name == 'shortcut' else jax.tree.map(np.zeros_like, value)
        for name, value in variables['params'].items()
    }
    maps, _ = apply(variables, x)
    width = maps.shape[-1]
    positions = sincos_sequence(4, width) + np.repeat(sincos_sequence(2, width), 2, axis=0)
    found = maps - positions[:, None, None] / 2
    if shortcut is not None:
        mean, var = (variables['batch_stats']['shortcut']['norm'][key] for key in ('mean', 'var'))
        expected = x[:, :, ::2, ::2] @ shortcut['conv']['kernel'][0, 0, 0]
        expected = (expected - mean) / np.sqrt(var + 1e-3)
        expected = expected * shortcut['norm']['scale'] + shortcut['norm']['bias']
    elif residual == 'pool' and index > 0:
        expected = pool_residual(jnp.asarray(x), width)
    else:
        expected = np.zeros_like(found)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_inception_has_four_branches_in_order():
    spec = specify('mfst', **SIZES)
    module, x = Inception(spec, (1, 2, 3, 4, 5, 6)), np.abs(_random(1, 2, 4, 5, 3))
    variables = jax.jit(functools.partial(module.init, train=False))(jax.random.key(0), x)
    params = variables['params']
    assert {name: value['conv']['kernel'].shape for name, value in params.items()} == {
        'b0': (1, 1, 1, 3, 1),
        'b1a': (1, 1, 1, 3, 2),
        'b1b': (1, 3, 3, 2, 3),
        'b2a': (1, 1, 1, 3, 4),
        'b2b': (1, 3, 3, 4, 5),
        'b3': (1, 1, 1, 3, 6),
    }
    found = jax.jit(functools.partial(module.apply, train=False))(variables, x)
    assert found.shape == (1, 2, 4, 5, 15)
    scale = 1 / np.sqrt(1 + 1e-3)
    first = nn.relu(x @ params['b0']['conv']['kernel'][0, 0, 0] * scale)
    np.testing.assert_allclose(found[..., :1], first, rtol=1e-4, atol=1e-6)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    pooled = np.max([padded[:, :, i : i + 4, j : j + 5] for i, j in np.ndindex(3, 3)], axis=0)
    last = nn.relu(pooled @ params['b3']['conv']['kernel'][0, 0, 0] * scale)
    np.testing.assert_allclose(found[..., 9:], last, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('momentum', [0.99, 0.5])
def test_batch_norms_keep_a_share_of_their_statistics(momentum):
    spec = specify('mfst', **SIZES, norm_momentum=momentum)
    block, x = ConvBlock(spec, 3), _random(2, 2, 4, 4, 3)
    run = functools.partial(block.apply, train=True, mutable=['batch_stats'])
    variables = block.init(jax.random.key(0), x, train=False)
    _, updated = jax.jit(run)(variables, x)
    outputs = x @ variables['params']['conv']['kernel'][0, 0, 0]
    mean = (1 - momentum) * outputs.mean(axis=(0, 1, 2, 3))
    np.testing.assert_allclose(updated['batch_stats']['norm']['mean'], mean, rtol=1e-3, atol=1e-6)


def test_presets_are_those_of_the_thesis():
    large, baseline = specify('mfst', size='Large'), specify('mfst', size='BM')
    assert (large.num_stages, large.scales, large.theta) == (4, (1, 2, 4), 0.6)
    assert specify('mfst') == specify('mfst', size='Base')
    assert (baseline.num_stages, baseline.scales, baseline.theta) == (4, (1,), 0)
    assert baseline.stage_residual == 'none'
    assert specify('mfst', size='V-Trans') == specify('mfst', size='Large', scales=(1,))


@pytest.mark.parametrize(
    ('keywords', 'message'),
    [
        ({'tubelet_size': (1, 12, 16)}, 'must be 2, 4, 8 or 16 pixels'),
        ({'scales': (1, 1)}, 'must be different numbers of time steps'),
        ({'scales': ()}, 'must be different numbers of time steps'),
        ({'theta': 1.5}, r'theta=1.5 must lie in \[0, 1\]'),
        ({'norm_momentum': 1.0}, r'norm_momentum=1.0 must lie in \[0, 1\)'),
        ({'head_dim': 0}, 'head_dim=0 must be at least 1'),
        ({'stem_rgb': 'cdc'}, 'one of'),
        ({'attention_implementation': 'pallas'}, 'set knn_ratio to 1'),
    ],
)
def test_impossible_keywords_are_errors(keywords, message):
    with pytest.raises(ValueError, match=message):
        specify('mfst', **{**SIZES, **keywords})


def test_frames_that_scales_do_not_divide_are_an_error():
    spec = specify('mfst', tubelet_size=(2, 16, 16), scales=(1, 2, 3))
    assert spec.grid((24, 32, 32)) == (12, 2, 2)
    with pytest.raises(ValueError, match=r'frames=16 .*choose frames as a multiple of 12'):
        spec.grid((16, 32, 32))
