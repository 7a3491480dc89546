import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_jax.weights.inflation import init_from_image_vit

WIDTH, LAYERS, PATCH = 16, 2, 4
GRID = (2, 3)
CLIP_SHAPE = (6, 8, 12)
TABLE = 'Transformer/posembed_input/pos_embedding'
ATTENTION = 'MultiHeadDotProductAttention'


def _images(shape=(2, 8, 12, 3)):
    return np.random.default_rng(2).uniform(-1, 1, shape).astype(np.float32)


def _still(images, num_frames=6):
    return np.repeat(images[:, None], num_frames, axis=1)


def _nested(flat):
    return flax.traverse_util.unflatten_dict(flat, sep='/')


def _features(model, params, clip):
    return jax.jit(model.apply)({'params': _nested(params)}, clip).features


def _error(value, expected):
    return np.linalg.norm(value - expected) / np.linalg.norm(expected)


EQUAL_TO_THE_VIT = [
    ('vivit_fe', {'temporal_num_layers': 0, 'pool': 'cls'}),
    ('vivit_fe', {'temporal_num_layers': 0, 'pool': 'mean'}),
    ('vivit_joint', {'pool': 'mean'}),
    ('vivit_fsa', {}),
    ('vivit_fsa', {'attention_order': 'time_space'}),
]


@pytest.mark.parametrize(
    ('choices', 'tokens'),
    [
        ({'tubelet_init': 'central_frame'}, {}),
        ({'tubelet_init': 'filter_inflation'}, {}),
        ({}, {'tokenizer': 'uniform_frames', 'num_sampled_frames': 4}),
    ],
    ids=str,
)
@pytest.mark.parametrize(('name', 'keywords'), EQUAL_TO_THE_VIT, ids=str)
def test_features_of_a_still_video_are_those_of_the_image(
    name, keywords, choices, tokens, image_vit, image_features, video_model, start
):
    model, images = video_model(name, **keywords, **tokens), _images()
    vit = image_vit(keywords.get('pool') == 'cls')
    _, params, _ = start(model, vit, **choices)
    assert _error(_features(model, params, _still(images)), image_features(vit, images)) < 1e-5


@pytest.mark.parametrize('length', [1, 2, 4])
def test_features_equal_the_image_for_other_tubelets_lengths_and_pictures(
    length, image_vit, image_features, video_model, start
):
    model = video_model('vivit_joint', pool='mean', tubelet_size=(length, PATCH, PATCH))
    grid, images = (5, 1), _images((1, 20, 4, 3))
    vit = image_vit(False, grid)
    _, params, _ = start(model, vit, (8, 20, 4), grid, tubelet_init='filter_inflation')
    error = _error(_features(model, params, _still(images, 8)), image_features(vit, images))
    assert error < 1e-5


@pytest.mark.parametrize(('name', 'keywords'), EQUAL_TO_THE_VIT, ids=str)
def test_features_at_another_resolution_are_those_of_the_vit_with_a_larger_table(
    name, keywords, image_vit, image_features, video_model, start
):
    model, vit = video_model(name, **keywords), image_vit(keywords.get('pool') == 'cls')
    _, params, report = start(model, vit, (3, 16, 24))
    # With twice the places, a row is 1/4 and 3/4 of its two neighbors; beyond the edge, the edge.
    table = vit[TABLE][0, 'cls' in vit :].reshape(*GRID, WIDTH)
    for axis in (0, 1):
        padded = np.pad(table, [(int(a == axis), int(a == axis)) for a in range(3)], mode='edge')
        low, mid, high = (np.moveaxis(padded, axis, 0)[i : i + table.shape[axis]] for i in range(3))
        pairs = np.stack([0.25 * low + 0.75 * mid, 0.75 * mid + 0.25 * high], 1)
        table = np.moveaxis(pairs.reshape(-1, *pairs.shape[2:]), 0, axis)
    rows = [vit[TABLE][:, : 'cls' in vit], table.reshape(1, -1, WIDTH)]
    resized = {**vit, TABLE: np.concatenate(rows, 1)}
    images = _images((2, 16, 24, 3))
    error = _error(_features(model, params, _still(images, 3)), image_features(resized, images))
    assert error < 1e-5
    (entry,) = (entry for entry in report.entries if entry.source == TABLE)
    assert entry.status == 'resized'
    grid = '4x6' if name == 'vivit_fe' else '1x4x6'
    assert entry.detail == f'grid 2x3 -> {grid}, linear'


def test_spatial_features_of_the_factorized_encoder_are_those_of_every_frame(
    image_vit, image_features, video_model, start
):
    model, vit = video_model('vivit_fe', tokenizer='uniform_frames'), image_vit(True)
    _, params, _ = start(model, vit)
    clip = np.random.default_rng(3).uniform(-1, 1, (2, *CLIP_SHAPE, 3)).astype(np.float32)
    _, state = model.apply(
        {'params': _nested(params)},
        clip,
        capture_intermediates=lambda module, _: module.name == 'SpatialTransformer',
    )
    tokens = state['intermediates']['SpatialTransformer']['__call__'][0][0]
    expected = image_features(vit, clip.reshape(-1, *clip.shape[2:])).reshape(2, 6, WIDTH)
    assert _error(tokens[:, :, 0], expected) < 1e-5


@pytest.mark.parametrize(
    ('tubelet_init', 'weights'),
    [('central_frame', [0, 0, 1, 0]), ('filter_inflation', [0.25] * 4), ('random', None)],
)
def test_tubelet_kernel_is_spread_over_its_frames(
    tubelet_init, weights, image_vit, video_model, start
):
    model = video_model('vivit_joint', tubelet_size=(4, PATCH, PATCH))
    vit = image_vit(True)
    fresh, params, _ = start(model, vit, (4, 8, 12), tubelet_init=tubelet_init)
    expected = fresh['embedding/kernel']
    if weights:
        expected = np.multiply.outer(np.float32(weights), vit['embedding/kernel'])
    np.testing.assert_array_equal(params['embedding/kernel'], expected)
    np.testing.assert_array_equal(params['embedding/bias'], vit['embedding/bias'])


@pytest.mark.parametrize('temporal_attention_init', ['zero', 'pretrained', 'fresh'])
def test_temporal_attention_starts_as_chosen(
    temporal_attention_init, image_vit, video_model, start
):
    vit = image_vit(False)
    fresh, params, _ = start(
        video_model('vivit_fsa'), vit, temporal_attention_init=temporal_attention_init
    )
    for path in (path for path in fresh if '_time/' in path):
        expected = fresh[path]
        if temporal_attention_init == 'pretrained' and ATTENTION in path:
            expected = vit[path.replace('_time', '_0')]
        elif temporal_attention_init == 'zero' and '/out/' in path:
            expected = np.zeros_like(expected)
        np.testing.assert_array_equal(params[path], expected, err_msg=path)


def test_zero_temporal_attention_learns(image_vit, video_model, start):
    model = video_model('vivit_fsa')
    _, params, _ = start(model, image_vit(False))
    rng = np.random.default_rng(4)
    clip, cotangent = rng.normal(size=(2, *CLIP_SHAPE, 3)), rng.normal(size=(2, WIDTH))

    @jax.jit
    def gradients(params):
        return jax.grad(lambda params: (_features(model, params, clip) * cotangent).sum())(params)

    def largest(grads, name):
        blocks = [f'Transformer/encoderblock_{layer}' for layer in range(LAYERS)]
        return [np.abs(grads[f'{b}/{ATTENTION}_time/{name}/kernel']).max() for b in blocks]

    grads = gradients(params)
    assert min(largest(grads, 'out')) > 1e-3
    for name in ('query', 'key', 'value'):
        assert max(largest(grads, name)) == 0
    for path in params:
        if path.endswith('_time/out/kernel'):
            params[path] -= 0.1 * grads[path]
    grads = gradients(params)
    for name in ('query', 'key', 'value', 'out'):
        assert min(largest(grads, name)) > 1e-4, name


def test_inputs_keep_their_values_and_share_no_memory(image_vit, video_model, fresh_params):
    model, vit = video_model('vivit_fsa'), image_vit(True)
    fresh, before = fresh_params(model), {name: value.copy() for name, value in vit.items()}
    nested = _nested(vit)
    kept = jax.tree.map(np.array, fresh)
    params, _ = init_from_image_vit(
        model,
        fresh,
        nested,
        clip_shape=CLIP_SHAPE,
        image_grid=GRID,
        temporal_attention_init='pretrained',
    )
    jax.tree.map(np.testing.assert_array_equal, nested, _nested(before))
    jax.tree.map(np.testing.assert_array_equal, fresh, kept)
    taken = jax.tree.map(np.array, params)
    for value in vit.values():
        value += 1
    jax.tree.map(np.testing.assert_array_equal, params, taken)
    assert len({x.unsafe_buffer_pointer() for x in jax.tree.leaves(params)}) == len(
        jax.tree.leaves(params)
    )


def test_half_precision_weights_become_float32(image_vit, video_model, start):
    model, vit = video_model('vivit_joint', pool='mean'), image_vit(False)
    half = {name: value.astype(np.float16) for name, value in vit.items()}
    single = {name: value.astype(np.float32) for name, value in half.items()}
    choices = {'clip_shape': (3, 16, 16), 'tubelet_init': 'filter_inflation'}
    _, params, _ = start(model, half, **choices)
    _, expected, _ = start(model, single, **choices)
    for path, value in params.items():
        assert value.dtype == jnp.float32
        np.testing.assert_array_equal(value, expected[path])


def test_square_grid_is_the_default(image_vit, video_model, start):
    vit = image_vit(True, (3, 3))
    _, params, _ = start(video_model('vivit_fe'), vit, (3, 12, 12), image_grid=None)
    table = params['SpatialTransformer/posembed_input/pos_embedding']
    np.testing.assert_array_equal(table, vit[TABLE])
