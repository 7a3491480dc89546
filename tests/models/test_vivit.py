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

pytestmark = pytest.mark.usefixtures('exact_matmuls')


# From tables 4 and 6 of the ViViT paper; the paper's equations give the numbers
# that the tables lack.
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
