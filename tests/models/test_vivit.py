"""Outputs, parameters and gradients of the four models."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_jax.layers.grid import sincos_positions
from vivit_jax.models.registry import create_model, list_models

VIVITS = [name for name in list_models() if name.startswith('vivit')]

POOLS = [
    ('vivit_joint', 'cls'),
    ('vivit_joint', 'mean'),
    ('vivit_fe', 'cls'),
    ('vivit_fe', 'mean'),
    ('vivit_fsa', 'mean'),
    ('vivit_fdp', 'mean'),
]

pytestmark = pytest.mark.usefixtures('exact_matmuls', 'quick_compilation')


def _path(path):
    return jax.tree_util.keystr(path, simple=True, separator='/')


# ViViT, tables 4 and 6, where it has the figure; the others follow from its equations.
@pytest.mark.parametrize(
    ('name', 'keywords', 'frame_size', 'count'),
    [
        ('vivit_joint', {'size': 'L/16x2'}, 320, 310_850_960),
        ('vivit_joint', {'size': 'H/14x2'}, 224, 636_945_040),
        ('vivit_fe', {'size': 'B/16x2', 'temporal_num_layers': 0}, 224, 86_696_080),
        ('vivit_fe', {'size': 'B/16x2', 'temporal_num_layers': 1}, 224, 93_799_312),
        ('vivit_fe', {'size': 'B/16x2', 'temporal_num_layers': 12}, 224, 171_765_904),
        ('vivit_fe', {'size': 'L/16x2'}, 224, 354_903_440),
    ],
)
def test_parameter_count_equals_specification(name, keywords, frame_size, count):
    clip = jax.ShapeDtypeStruct((1, 32, frame_size, frame_size, 3), jnp.float32)
    params = jax.eval_shape(create_model(name, **keywords).init, jax.random.key(0), clip)['params']
    assert sum(x.size for x in jax.tree.leaves(params)) == count


@pytest.mark.parametrize(
    ('tokenizer', 'position', 'shape'),
    [
        ('tubelet', 'learned', (2, 4, 16, 16, 3)),
        ('tubelet', 'sincos3d', (1, 10, 24, 40, 3)),
        ('tubelet', 'none', (3, 2, 8, 8, 3)),
        ('uniform_frames', 'learned', (1, 10, 24, 40, 3)),
        ('uniform_frames', 'sincos3d', (3, 2, 8, 8, 3)),
        ('uniform_frames', 'none', (2, 5, 16, 24, 3)),
    ],
)
@pytest.mark.parametrize(('name', 'pool'), POOLS)
def test_output_has_documented_shapes_and_parameters(
    create_tiny, name, pool, tokenizer, position, shape
):
    model = create_tiny(
        name, pool=pool, tokenizer=tokenizer, position=position, num_sampled_frames=3, num_layers=1
    )
    clip = jax.ShapeDtypeStruct(shape, jnp.float32)
    output, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), clip)
    assert (output.logits.shape, output.logits.dtype) == ((shape[0], 5), jnp.float32)
    assert (output.features.shape, output.features.dtype) == ((shape[0], 16), jnp.float32)
    assert output.intermediates == {}

    params = variables['params']
    num_times = shape[1] // 2 if tokenizer == 'tubelet' else min(3, shape[1])
    num_places = shape[2] // 8 * (shape[3] // 8)
    if name == 'vivit_fe':
        places = {'SpatialTransformer': num_places, 'TemporalTransformer': num_times}
        class_tokens = {f'cls_{encoder}' for encoder in places}
    else:
        places = {'Transformer': num_times * num_places}
        class_tokens = {'cls'}
    expected = {*places, 'embedding', 'output_projection'}
    if pool == 'cls':
        expected |= class_tokens
    assert set(params) == expected
    for encoder, count in places.items():
        if position == 'learned':
            table = params[encoder]['posembed_input']['pos_embedding']
            assert table.shape == (1, count + (pool == 'cls'), 16)
        else:
            assert 'posembed_input' not in params[encoder]
    kernel = (8, 8, 3, 16) if tokenizer == 'uniform_frames' else (2, 8, 8, 3, 16)
    assert params['embedding']['kernel'].shape == kernel


@pytest.mark.parametrize('name', VIVITS)
def test_several_heads_have_logits_and_parameters_by_name(create_tiny, random_clip, name):
    model = create_tiny(name, num_classes={'verb': 4, 'noun': 7}, num_layers=1)
    output, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), random_clip())
    shapes = {head: (logits.shape, logits.dtype) for head, logits in output.logits.items()}
    assert shapes == {'verb': ((2, 4), jnp.float32), 'noun': ((2, 7), jnp.float32)}
    heads = {key for key in variables['params'] if key.startswith('output_projection')}
    assert heads == {'output_projection_verb', 'output_projection_noun'}


@pytest.mark.parametrize('name', VIVITS)
def test_classifier_starts_at_zero_on_finite_features(create_tiny, random_clip, name):
    model = create_tiny(name, num_layers=1)
    output, _ = model.init_with_output(jax.random.key(0), random_clip())
    np.testing.assert_array_equal(output.logits, np.zeros((2, 5)))
    assert np.isfinite(output.features).all()
    assert not np.allclose(output.features[0], output.features[1])


@pytest.mark.parametrize('name', VIVITS)
def test_output_with_jit_equals_output_without(create_tiny, random_clip, random_params, name):
    model, clip = create_tiny(name, num_layers=1), random_clip((2, 6, 8, 24, 3))
    variables = {'params': random_params(model, clip)}
    output, jitted = model.apply(variables, clip), jax.jit(model.apply)(variables, clip)
    for field in ('logits', 'features'):
        value = getattr(output, field)
        assert np.isfinite(value).all() and np.std(value) > 0.1
        np.testing.assert_allclose(getattr(jitted, field), value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('name', 'keywords'),
    [
        *((name, {}) for name in VIVITS),
        ('vivit_joint', {'pool': 'mean', 'tokenizer': 'uniform_frames'}),
        ('vivit_fe', {'temporal_num_layers': 0, 'position': 'sincos3d', 'dtype': 'bfloat16'}),
        ('vivit_fsa', {'attention_order': 'time_space', 'num_classes': {'verb': 2, 'noun': 3}}),
        ('vivit_fdp', {'position': 'none', 'gelu': 'exact', 'tokenizer': 'uniform_frames'}),
    ],
    ids=str,
)
def test_every_parameter_gets_a_gradient(create_tiny, random_clip, random_params, name, keywords):
    model, clip = create_tiny(name, **{'num_layers': 1, **keywords}), random_clip()
    params = random_params(model, clip, scale=0.3)

    def loss(params):
        logits = jax.tree.leaves(model.apply({'params': params}, clip).logits)
        return sum((x * random_clip(x.shape, 1)).sum() for x in logits)

    for path, grad in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(params)):
        assert grad.dtype == jnp.float32
        assert np.isfinite(grad).all(), _path(path)
        # A key's bias shifts all scores of a query alike, which the softmax does not see.
        if not _path(path).endswith('key/bias'):
            assert np.abs(grad).max() > 1e-4, _path(path)


@pytest.mark.parametrize('name', VIVITS)
def test_bfloat16_is_near_float32_with_float32_parameters_and_logits(
    create_tiny, random_clip, random_params, name
):
    clip, coarse_model = random_clip(), create_tiny(name, dtype='bfloat16')
    params = random_params(create_tiny(name), clip, scale=0.2)
    variables = jax.eval_shape(coarse_model.init, jax.random.key(0), clip)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(variables))

    exact = create_tiny(name).apply({'params': params}, clip)
    coarse = coarse_model.apply({'params': params}, clip)
    assert (coarse.logits.dtype, coarse.features.dtype) == (jnp.float32, jnp.float32)
    error = np.linalg.norm(coarse.logits - exact.logits) / np.linalg.norm(exact.logits)
    assert 1e-4 < error < 0.03  # float32 throughout would be nearer


@pytest.mark.parametrize('name', VIVITS)
@pytest.mark.parametrize(
    'keywords', [{'gelu': 'exact'}, {'layer_norm_eps': 0.1}, {'position': 'none'}], ids=str
)
def test_keyword_changes_every_block_or_encoder(
    create_tiny, random_clip, random_params, name, keywords
):
    model, clip = create_tiny(name, num_layers=1), random_clip()
    variables = {'params': random_params(model, clip)}
    changed = create_tiny(name, num_layers=1, **keywords)
    difference = changed.apply(variables, clip).logits - model.apply(variables, clip).logits
    assert np.abs(difference).max() > 1e-5


def test_order_of_attentions_changes_the_result_but_no_parameter(
    create_tiny, random_clip, random_params
):
    first, second = (
        create_tiny('vivit_fsa', num_layers=1, attention_order=order)
        for order in ('space_time', 'time_space')
    )
    clip = random_clip()
    variables = {'params': random_params(first, clip)}
    shapes = jax.eval_shape(second.init, jax.random.key(0), clip)
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, variables)
    one, other = (model.apply(variables, clip).logits for model in (first, second))
    assert np.abs(one - other).max() > 0.01


def test_spatial_positions_are_those_of_rows_and_columns(
    create_tiny, random_clip, random_params, encoder_tokens
):
    # A black clip without biases leaves only the normalized positions.
    model = create_tiny(
        'vivit_fe', num_layers=0, temporal_num_layers=0, pool='mean', position='sincos3d'
    )
    clip = jnp.zeros((1, 2, 16, 24, 3))
    params = jax.tree.map(jnp.zeros_like, random_params(model, clip))
    params['SpatialTransformer']['encoder_norm']['scale'] += 1
    positions = sincos_positions((2, 3), 16)
    expected = (positions - positions.mean(-1, keepdims=True)) / positions.std(-1, keepdims=True)
    output = encoder_tokens(model, params, clip)
    np.testing.assert_allclose(output[0, 0], expected, atol=1e-4)


@pytest.mark.parametrize(
    ('name', 'keywords', 'sees_order'),
    [
        ('vivit_fe', {'temporal_num_layers': 0}, False),
        ('vivit_fe', {'position': 'none'}, False),
        ('vivit_fe', {}, True),
        ('vivit_fe', {'position': 'sincos3d'}, True),
        *(
            (name, {'position': position}, position != 'none')
            for name in ('vivit_joint', 'vivit_fsa', 'vivit_fdp')
            for position in ('none', 'learned')
        ),
    ],
)
def test_only_temporal_positions_tell_the_order_of_frames(
    create_tiny, random_clip, random_params, name, keywords, sees_order
):
    model = create_tiny(name, tokenizer='uniform_frames', num_layers=1, **keywords)
    clip = random_clip((2, 5, 16, 16, 3))
    variables = {'params': random_params(model, clip)}
    before = model.apply(variables, clip).logits
    after = model.apply(variables, clip[:, jnp.array([3, 0, 4, 1, 2])]).logits
    difference = np.linalg.norm(after - before) / np.linalg.norm(before)
    assert difference > 1e-4 if sees_order else difference < 5e-6
