import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_jax.layers.position import sincos_positions
from vivit_jax.models.registry import create_model

CLIP_SHAPE = (2, 4, 16, 16, 3)


@pytest.fixture(autouse=True)
def exact_matmuls():
    """Accelerators multiply float32 coarsely by default."""
    with jax.default_matmul_precision('highest'):
        yield


def _tiny(**keywords):
    sizes = {'hidden_size': 16, 'num_layers': 2, 'num_heads': 2, 'mlp_dim': 24, 'num_classes': 5}
    length = 1 if keywords.get('tokenizer') == 'uniform_frames' else 2
    defaults = {**sizes, 'tubelet_size': (length, 8, 8), 'temporal_num_layers': 1}
    return create_model('vivit_fe', **{**defaults, **keywords})


def _clip(shape=CLIP_SHAPE, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, shape), jnp.float32)


def _params(model, clip, scale=0.3):
    """Random parameters: at initialisation class tokens and classifier would be zero."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), clip)['params']
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(0, scale, x.shape), x.dtype), shapes)


def _spatial_encoder(model):
    """Makes (params, clip, key) -> the spatial encoder's output [b t n d]; a key: in training."""

    @jax.jit
    def spatial_encoder(params, clip, key=None):
        _, state = model.apply(
            {'params': params},
            clip,
            train=key is not None,
            rngs=None if key is None else {'dropout': key},
            capture_intermediates=lambda module, _: module.name == 'SpatialTransformer',
        )
        return state['intermediates']['SpatialTransformer']['__call__'][0]

    return lambda *args: np.asarray(spatial_encoder(*args))


# ViViT, table 1 and 4, where it has the figure; the others follow from the block's 12 d² + 13 d.
@pytest.mark.parametrize(
    ('size', 'temporal_num_layers', 'count'),
    [
        ('B/16x2', 0, 86_696_080),
        ('B/16x2', 1, 93_799_312),
        ('B/16x2', 4, 115_062_928),
        ('B/16x2', 8, 143_414_416),
        ('L/16x2', 4, 354_903_440),
        ('H/14x2', 4, 710_765_200),
    ],
)
def test_parameter_count_equals_specification(size, temporal_num_layers, count):
    model = create_model('vivit_fe', size=size, temporal_num_layers=temporal_num_layers)
    clip = jax.ShapeDtypeStruct((1, 32, 224, 224, 3), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), clip)['params']
    assert sum(x.size for x in jax.tree.leaves(params)) == count


@pytest.mark.parametrize('position', ['learned', 'sincos3d', 'none'])
@pytest.mark.parametrize('pool', ['cls', 'mean'])
@pytest.mark.parametrize('tokenizer', ['tubelet', 'uniform_frames'])
@pytest.mark.parametrize('shape', [(2, 4, 16, 16, 3), (1, 10, 24, 40, 3), (3, 2, 8, 8, 3)])
def test_output_has_documented_shapes_and_parameters(shape, tokenizer, pool, position):
    model = _tiny(tokenizer=tokenizer, pool=pool, position=position, num_sampled_frames=3)
    clip = jax.ShapeDtypeStruct(shape, jnp.float32)
    output, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), clip)
    assert (output.logits.shape, output.logits.dtype) == ((shape[0], 5), jnp.float32)
    assert (output.features.shape, output.features.dtype) == ((shape[0], 16), jnp.float32)

    params = variables['params']
    num_times = shape[1] // 2 if tokenizer == 'tubelet' else min(3, shape[1])
    num_class_tokens = 1 if pool == 'cls' else 0
    for name, places in (
        ('SpatialTransformer', shape[2] // 8 * (shape[3] // 8)),
        ('TemporalTransformer', num_times),
    ):
        assert (f'cls_{name}' in params) == (pool == 'cls')
        if position == 'learned':
            table = params[name]['posembed_input']['pos_embedding']
            assert table.shape == (1, num_class_tokens + places, 16)
        else:
            assert 'posembed_input' not in params[name]
    kernel = (8, 8, 3, 16) if tokenizer == 'uniform_frames' else (2, 8, 8, 3, 16)
    assert params['embedding']['kernel'].shape == kernel


def test_classifier_starts_at_zero_on_finite_features():
    model = _tiny(num_layers=1, temporal_num_layers=0)
    key = jax.random.key(0, impl='rbg')  # compiles faster
    output, _ = jax.jit(model.init_with_output)(key, _clip())
    np.testing.assert_array_equal(output.logits, np.zeros((2, 5)))
    assert np.isfinite(output.features).all()
    assert not np.allclose(output.features[0], output.features[1])


@pytest.mark.parametrize(
    'keywords',
    [
        {},
        {'pool': 'mean', 'tokenizer': 'uniform_frames'},
        {'temporal_num_layers': 0, 'position': 'sincos3d', 'dtype': 'bfloat16'},
    ],
    ids=str,
)
def test_every_parameter_gets_a_gradient(keywords):
    model, clip = _tiny(**{'num_layers': 1, **keywords}), _clip()
    params = _params(model, clip)

    def loss(params):
        return (model.apply({'params': params}, clip).logits * _clip((2, 5), 1)).sum()

    for path, grad in jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(params)):
        name = jax.tree_util.keystr(path, simple=True, separator='/')
        assert grad.dtype == jnp.float32
        assert np.isfinite(grad).all(), name
        # A key's bias shifts all scores of a query alike, which the softmax does not see.
        if not name.endswith('key/bias'):
            assert np.abs(grad).max() > 1e-4, name


def test_bfloat16_is_near_float32_with_float32_parameters_and_logits():
    clip = _clip()
    params = _params(_tiny(), clip, 0.2)
    variables = jax.eval_shape(_tiny(dtype='bfloat16').init, jax.random.key(0), clip)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(variables))

    exact = jax.jit(_tiny().apply)({'params': params}, clip)
    coarse = jax.jit(_tiny(dtype='bfloat16').apply)({'params': params}, clip)
    assert (coarse.logits.dtype, coarse.features.dtype) == (jnp.float32, jnp.float32)
    error = np.linalg.norm(coarse.logits - exact.logits) / np.linalg.norm(exact.logits)
    assert 1e-4 < error < 0.03  # float32 throughout would be nearer


def test_spatial_encoder_keeps_time_indices_and_clips_apart():
    model, clip = _tiny(), _clip((2, 8, 16, 16, 3))
    params = _params(model, clip)
    spatial_encoder = _spatial_encoder(model)
    before = spatial_encoder(params, clip)
    changed = clip.at[1, 5, 3, 3].add(1)  # one pixel of the third tubelet
    after = spatial_encoder(params, changed)
    moved = np.abs(after - before).max(-1)
    expected = np.zeros((2, 4, 5), bool)
    expected[1, 2] = True  # all tokens of that time index, the class token too
    np.testing.assert_array_equal(moved > 1e-5, expected)


def test_spatial_positions_are_those_of_rows_and_columns():
    # A black clip without biases leaves only the normalized positions.
    model = _tiny(num_layers=0, temporal_num_layers=0, pool='mean', position='sincos3d')
    clip = jnp.zeros((1, 2, 16, 24, 3))
    params = jax.tree.map(jnp.zeros_like, _params(model, clip))
    params['SpatialTransformer']['encoder_norm']['scale'] += 1
    positions = sincos_positions((2, 3), 16)
    expected = (positions - positions.mean(-1, keepdims=True)) / positions.std(-1, keepdims=True)
    output = _spatial_encoder(model)(params, clip)
    np.testing.assert_allclose(output[0, 0], expected, atol=1e-4)


@pytest.mark.parametrize(
    ('temporal_num_layers', 'position', 'sees_order'),
    [(0, 'learned', False), (1, 'none', False), (1, 'learned', True), (1, 'sincos3d', True)],
)
def test_only_temporal_positions_tell_the_order_of_frames(
    temporal_num_layers, position, sees_order
):
    model = _tiny(
        tokenizer='uniform_frames',
        num_layers=1,
        temporal_num_layers=temporal_num_layers,
        position=position,
    )
    clip = _clip((2, 5, 16, 16, 3))
    params = _params(model, clip)
    apply = jax.jit(model.apply)
    before = apply({'params': params}, clip).logits
    after = apply({'params': params}, clip[:, jnp.array([3, 0, 4, 1, 2])]).logits
    difference = np.linalg.norm(after - before) / np.linalg.norm(before)
    assert difference > 1e-3 if sees_order else difference < 1e-5


@pytest.mark.parametrize('keyword', ['dropout_rate', 'attention_dropout_rate'])
def test_dropout_masks_differ_between_frames_and_examples(keyword):
    model = _tiny(tokenizer='uniform_frames', num_layers=1, **{keyword: 0.5})
    clip = jnp.broadcast_to(_clip((1, 1, 16, 16, 3)), (3, 4, 16, 16, 3))  # still, and alike
    params, spatial_encoder = _params(model, clip), _spatial_encoder(model)
    for key, num_different in ((None, 1), (jax.random.key(0), 12)):
        tokens = spatial_encoder(params, clip, key)
        assert len(np.unique(tokens.reshape(12, -1).round(4), axis=0)) == num_different


def test_drop_path_drops_all_frames_of_an_example():
    model = _tiny(tokenizer='uniform_frames', drop_path_rate=0.5)
    clip = jnp.broadcast_to(_clip((1, 1, 16, 16, 3)), (16, 3, 16, 16, 3))
    tokens = _spatial_encoder(model)(_params(model, clip), clip, jax.random.key(0))
    np.testing.assert_allclose(tokens, np.broadcast_to(tokens[:, :1], tokens.shape), atol=1e-4)
    # Each branch of the second block is there or is not.
    assert len(np.unique(tokens.reshape(16, -1).round(3), axis=0)) == 4
