"""The contract that every model of the registry keeps."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import find_rates, known_keywords

from vivit_jax.models.registry import list_models, model_keywords

# Every model with its defaults, and with the switches that change its structure.
SWITCHES = {
    'vivit_joint': [
        {'pool': 'mean', 'tokenizer': 'uniform_frames'},
        {'pool': 'cls_attention'},
    ],
    'vivit_fe': [
        {'temporal_num_layers': 0, 'position': 'sincos3d', 'pool': 'mean'},
        {'temporal_num_layers': 0, 'pool': 'cls_mean', 'frame_pool': 'concat'},
        {'temporal_num_layers': 0, 'pool': 'cls_mean', 'frame_pool': 'change'},
        {'temporal_num_layers': 0, 'pool': 'cls_attention'},
        {'pool': 'attention'},
    ],
    'vivit_fsa': [{'attention_order': 'time_space', 'pool': 'attention'}],
    'vivit_fdp': [{'position': 'none', 'gelu': 'exact', 'tokenizer': 'uniform_frames'}],
    'convivit': [{'cnn_blocks': 2, 'factorization': 'dot_product', 'cnn_stride': 2}],
    'rpe_stdt': [
        {'shared_heads': False, 'rpe_terms': 'key', 'subsample': 'conv'},
        {'pos_embed': 'absolute', 'temporal_pos': 'absolute', 'light': False},
        {'temporal': 'none', 'rpe_method': 'euclidean'},
    ],
    'ctn': [{'mapping': 'linear', 'position': 'learned', 'norm': 'post', 'stem_bn': False}],
    'mfst': [{'weight_shared': False, 'stage_residual': 'proj', 'knn_spatial': False}],
    'f4d': [{'attention': ('se', 'cbam'), 'blocks': ('conv1',)}],
    'v4d': [{'block_kernel': (3, 1, 3, 3), 'temporal_kernels': (3, 1, 1, 1)}],
}
NAMES = list_models()
CASES = [(name, keywords) for name in NAMES for keywords in ({}, *SWITCHES.get(name, ()))]
WITH_STATISTICS = [
    ('convivit', {'cnn_blocks': 2}),
    ('ctn', {}),
    ('ctn', {'scan_layers': True}),
    ('f4d', {}),
]

# A key's bias shifts all scores of a query equally, which does not change the softmax. In the last
# block, only the query of the class token counts: CTN does not convolve the class token, and in
# RPE-STDT all its pairs are in one cluster. In the late stages of MFST a frame has a single place.
_WITHOUT_GRADIENT = (
    'key/bias$|encoderblock_1/.*/(query_local|relative_position/key_table)|'
    'stage_[12]/SpatialTransformer/.*/(query|key)/'
)

pytestmark = pytest.mark.usefixtures('exact_matmuls')


@functools.partial(jax.jit, static_argnames=('model', 'train', 'capture_attention'))
def _apply(model, variables, clip, key=None, train=False, capture_attention=False):
    """The output, and the running statistics afterwards."""
    output, changed = model.apply(
        variables,
        clip,
        train,
        capture_attention,
        rngs=None if key is None else {'dropout': key},
        mutable=['batch_stats'],
    )
    return output, changed.get('batch_stats', {})


def _assert_near(found, expected, rtol=1e-3, atol=1e-4):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol, atol), found, expected)


@pytest.mark.parametrize(
    ('shape', 'classes'),
    [((2, 4, 16, 16, 3), 5), ((1, 6, 8, 24, 3), {'verb': 4, 'noun': 7})],
)
@pytest.mark.parametrize(('name', 'keywords'), CASES, ids=str)
def test_output_has_documented_shapes_and_types(create_tiny, name, keywords, shape, classes):
    model = create_tiny(name, num_classes=classes, dtype='bfloat16', **keywords)
    clip = jax.ShapeDtypeStruct(shape, jnp.float32)
    output, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), clip)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves((output, variables)))
    assert output.features.shape == (shape[0], model.spec.num_features(model.spec.grid(shape[1:4])))
    expected = jax.tree.map(lambda count: (shape[0], count), classes)
    assert jax.tree.map(jnp.shape, output.logits) == expected
    assert output.intermediates == {}


@pytest.mark.parametrize('name', NAMES)
def test_classifier_starts_at_zero_on_finite_features(create_tiny, random_clip, dropout_key, name):
    model = create_tiny(name, **known_keywords(name, num_layers=1))
    init = jax.jit(model.init_with_output)
    output, _ = init(dropout_key(), random_clip())
    np.testing.assert_array_equal(output.logits, np.zeros((2, 5)))
    assert np.isfinite(output.features).all()
    assert not np.allclose(output.features[0], output.features[1])


@pytest.mark.parametrize('name', ['vivit_joint', 'ctn'])  # eager operations compile one by one
def test_output_with_jit_equals_output_without(create_tiny, random_clip, random_variables, name):
    model = create_tiny(name, **known_keywords(name, num_layers=1))
    clip = random_clip((2, 6, 8, 24, 3))
    variables = random_variables(model, clip)
    output = model.apply(variables, clip)
    assert np.std(output.logits) > 0.1
    _assert_near(_apply(model, variables, clip)[0], output)


@pytest.mark.parametrize(('name', 'keywords'), CASES, ids=str)
def test_every_parameter_gets_a_gradient(
    create_tiny, random_clip, random_variables, name, keywords
):
    # With the random numbers of one layer, all ReLUs of a branch of MFST would be zero.
    layers = known_keywords(name, num_layers=2)
    model, clip = create_tiny(name, **layers, **keywords), random_clip()
    variables = random_variables(model, clip, scale=0.5)

    def loss(params):
        output = model.apply({**variables, 'params': params}, clip)
        return (output.logits * random_clip((2, 5), 1)).sum()

    grads = jax.jit(jax.grad(loss))(variables['params'])
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        label = jax.tree_util.keystr(path, simple=True, separator='/')
        assert np.isfinite(grad).all(), label
        # What is added to every token changes no difference of tokens.
        cancels = keywords.get('frame_pool') == 'change' and label.endswith('encoder_norm/bias')
        if not (cancels or re.search(_WITHOUT_GRADIENT, label)):
            assert np.abs(grad).max() > 1e-5, label


@pytest.mark.parametrize('name', NAMES)
def test_bfloat16_is_near_float32(create_tiny, random_clip, random_variables, name):
    clip = random_clip()
    variables = random_variables(create_tiny(name), clip, scale=0.2)
    exact, coarse = (
        _apply(create_tiny(name, dtype=dtype), variables, clip)[0].logits
        for dtype in ('float32', 'bfloat16')
    )
    error = np.linalg.norm(coarse - exact) / np.linalg.norm(exact)
    assert 1e-4 < error < 0.03  # float32 throughout would be nearer


@pytest.mark.parametrize(('name', 'keywords'), WITH_STATISTICS, ids=str)
def test_training_alone_moves_the_statistics(
    create_tiny, random_clip, random_variables, name, keywords
):
    model, clip = create_tiny(name, **keywords), random_clip()
    variables = random_variables(model, clip)
    before = variables['batch_stats']
    assert before
    for train in (False, True):
        _, after = _apply(model, variables, clip, train=train)
        assert jax.tree.structure(after) == jax.tree.structure(before)
        changes = jax.tree.map(lambda x, y: np.abs(x - y).max(), after, before)
        assert all((change > 1e-4) == train for change in jax.tree.leaves(changes))


@pytest.mark.parametrize(
    ('name', 'form'),
    [
        *((name, known_keywords(name, remat='block', scan_layers=True)) for name in NAMES),
        ('convivit', {'remat': 'block', 'cnn_blocks': 2}),
        ('ctn', {'remat': 'dots'}),
        ('ctn', {'attention_implementation': 'chunked'}),
    ],
    ids=str,
)
def test_form_changes_no_value_gradient_or_statistic(
    create_tiny, random_clip, random_variables, name, form
):
    clip = random_clip()
    how = {
        key: form[key]
        for key in form
        if key in ('remat', 'scan_layers', 'attention_implementation')
    }
    what = {key: form[key] for key in form.keys() - how.keys()}
    variables = random_variables(create_tiny(name, **what), clip, scale=0.2)

    def run(**how):
        model = create_tiny(name, **what, **how)

        def loss(params):
            output, stats = _apply(model, {**variables, 'params': params}, clip, train=True)
            return (output.logits * np.arange(1, 6)).sum(), stats

        return jax.jit(jax.value_and_grad(loss, has_aux=True))(variables['params'])

    _assert_near(run(**how), run(), atol=1e-3)


@pytest.mark.parametrize(
    ('name', 'keyword'), [(name, rate) for name in NAMES for rate in find_rates(name)]
)
def test_rate_acts_in_training_by_its_key(
    create_tiny, random_clip, random_variables, dropout_key, name, keyword
):
    # Scanned layers draw by keys of their own: the models are tested with both forms by turns.
    layers = 2 if keyword == 'drop_path_rate' else 1  # the first layer drops nothing
    form = known_keywords(name, scan_layers=NAMES.index(name) % 2 == 0, num_layers=layers)
    model = create_tiny(name, **form, **{keyword: 0.5})
    clip = random_clip((6, 4, 16, 16, 3))
    variables = random_variables(create_tiny(name, **known_keywords(name, num_layers=layers)), clip)
    first, again, second = (
        _apply(model, variables, clip, dropout_key(seed), train=True)[0].logits
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.isfinite(first).all()
    assert np.abs(first - second).max() > 1e-3


@pytest.mark.parametrize('name', NAMES)
def test_rates_leave_evaluation_alone(create_tiny, random_clip, random_variables, name):
    rates = dict.fromkeys(find_rates(name), 0.5)
    plain, clip = create_tiny(name), random_clip()
    variables = random_variables(plain, clip)
    output, _ = _apply(create_tiny(name, **rates), variables, clip)
    _assert_near(output, _apply(plain, variables, clip)[0], atol=1e-5)


@pytest.mark.parametrize(
    ('name', 'keywords', 'attentions'),
    [
        (
            'convivit',
            {},
            {'space': {'space': (2, 2, 2, 6, 6)}, 'time': {'time': (2, 6, 2, 2, 2)}},
        ),
        (
            'convivit',
            {'factorization': 'dot_product'},
            {'0': {'time': (2, 6, 1, 2, 2), 'space': (2, 2, 1, 6, 6)}},
        ),
        ('ctn', {}, {'0': {'tokens': (2, 2, 13, 13)}}),
        ('ctn', {'scan_layers': True}, {'0': {'tokens': (2, 2, 13, 13)}}),
    ],
    ids=str,
)
def test_captured_weights_are_distributions_that_leave_the_logits(
    create_tiny, random_clip, random_variables, name, keywords, attentions
):
    model, clip = create_tiny(name, **keywords), random_clip((2, 4, 16, 24, 3))
    variables = random_variables(model, clip)
    output, _ = _apply(model, variables, clip, capture_attention=True)
    by_name = {f'MultiHeadDotProductAttention_{key}': shape for key, shape in attentions.items()}
    expected = {'Transformer': {f'encoderblock_{layer}': by_name for layer in range(2)}}
    assert jax.tree.map(np.shape, output.intermediates) == expected
    for weights in jax.tree.leaves(output.intermediates):
        assert weights.dtype == np.float32
        np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-5)
    plain, _ = _apply(model, variables, clip)
    np.testing.assert_allclose(output.logits, plain.logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('name', [name for name in NAMES if 'tubelet_size' in model_keywords(name)])
def test_clip_that_does_not_divide_is_an_error_about_the_clip(create_tiny, name):
    for shape, message in (((1, 3, 16, 16, 3), 'frames=3'), ((1, 4, 16, 20, 3), 'width=20')):
        with pytest.raises(ValueError, match=f'{message} does not divide into tubelets of'):
            jax.eval_shape(create_tiny(name).init, jax.random.key(0), jnp.zeros(shape))
