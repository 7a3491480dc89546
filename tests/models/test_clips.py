"""What a model says to clips that it was not made for."""

import jax
import jax.numpy as jnp
import pytest

from vivit_jax.models.registry import list_models

CLIP = (1, 4, 16, 16, 3)


@pytest.mark.parametrize('name', list_models())
@pytest.mark.parametrize(
    ('shape', 'dtype', 'message'),
    [
        (CLIP, jnp.uint8, 'takes float clips in the value_range .* not uint8: .*create_forward'),
        (CLIP[1:], jnp.float32, r'takes clips \[b t h w c\]; .* clip\[None\] adds it'),
        (CLIP[2:], jnp.float32, r'takes clips \[b t h w c\]; this array is \[16, 16, 3\]'),
    ],
    ids=['uint8', 'unbatched', 'frame'],
)
def test_other_types_and_ranks_are_errors(create_tiny, name, shape, dtype, message):
    model = create_tiny(name)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, dtype))


@pytest.mark.parametrize(
    ('keywords', 'channels'),
    [({}, 3), ({'modality': 'depth'}, 3), ({'modality': 'depth', 'depth_channels': 1}, 1)],
    ids=['rgb', 'depth', 'one_channel'],
)
@pytest.mark.parametrize('name', list_models())
def test_modality_says_how_many_channels_a_clip_has(create_tiny, name, keywords, channels):
    model = create_tiny(name, **keywords)
    clip, other = (jax.ShapeDtypeStruct((*CLIP[:-1], n), jnp.float32) for n in (channels, 2))
    output, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), clip)
    assert output.logits.shape == (1, 5)
    with pytest.raises(ValueError, match=rf'takes clips of {channels} channels; .* 16, 2\]'):
        jax.eval_shape(model.init, jax.random.key(0), other)


@pytest.mark.parametrize('shape', [(1, 8, 16, 16, 3), (1, 4, 32, 32, 3)])
def test_other_sizes_are_errors_with_learned_positions_only(create_tiny, shape):
    for position in ('learned', 'sincos3d'):
        model = create_tiny('vivit_joint', position=position)
        clip, other = (jax.ShapeDtypeStruct(x, jnp.float32) for x in (CLIP, shape))
        variables = jax.eval_shape(model.init, jax.random.key(0), clip)
        if position == 'sincos3d':
            jax.eval_shape(model.apply, variables, other)
            continue
        with pytest.raises(ValueError, match=r'posembed_input has learned positions for \d+ tok'):
            jax.eval_shape(model.apply, variables, other)
