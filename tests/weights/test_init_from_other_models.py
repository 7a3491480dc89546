"""Models that extend a ViViT start from an image ViT, from that ViViT, or from themselves."""

import dataclasses
import fnmatch

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_jax.errors import UserError
from vivit_jax.heads import numbered_labels
from vivit_jax.model_card import ModelCard
from vivit_jax.models.registry import create_model
from vivit_jax.models.variables import abstract_params
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.weights.init_from import describe_differences, init_from
from vivit_jax.weights.weights import Weights, clip_grid

GRID = (2, 3)
CLIP_SHAPE = (6, 8, 12)
TABLE = 'Transformer/posembed_input/pos_embedding'
SIZES = {'hidden_size': 8, 'num_layers': 1, 'num_heads': 2, 'mlp_dim': 8}
SPEC = Preprocessing(num_frames=4, short_side=16, crop_size=16)
FRAMES = {'tubelet_size': (1, 4, 4)}
LIGHT = {'temporal_num_layers': 2, 'subsample_layers': (1,), 'temporal_head_dim': 4}
ABSOLUTE = {**LIGHT, 'pos_embed': 'absolute', 'temporal_pos': 'absolute', 'subsample': 'conv'}
SPATIAL = {'pos_embed': 'frame', 'temporal': 'none'}

# Model, its keywords, the parameters that stay fresh, and the unused parameters of the ViT.
FROM_IMAGES = [
    (
        'convivit',
        {**FRAMES, 'cnn_channels': 4},
        ['cnnblock_0/*', 'embedding/*', 'embedding_norm/*', 'embedding_position/*', '*_time/*'],
        ['embedding/kernel', 'embedding/bias', 'cls', TABLE],
    ),
    (
        'convivit',
        {**FRAMES, 'cnn_blocks': 0, 'factorization': 'dot_product'},
        ['embedding/*', 'embedding_norm/*', 'embedding_position/*'],
        ['embedding/kernel', 'embedding/bias', 'cls', TABLE],
    ),
    (
        'ctn',
        {'stem_channels': 4, 'position': 'learned'},
        ['stem/*', 'embedding/*', '*/query_local/*', '*/key_local/*', '*/value_local/*'],
        ['embedding/kernel', 'embedding/bias'],
    ),
    (
        'ctn',
        {'stem_channels': 4, 'stem_bn': False, 'mapping': 'linear'},
        ['stem/*', 'embedding/*'],
        ['embedding/kernel', 'embedding/bias', TABLE],
    ),
    ('ctn', {'embed': 'tubelet', 'mapping_bn': False}, ['*_local/conv/kernel'], [TABLE]),
    (
        'ctn',
        {'embed': 'tubelet', 'norm': 'post'},
        ['*_local/*'],
        [TABLE, 'Transformer/encoder_norm/scale', 'Transformer/encoder_norm/bias'],
    ),
    (
        'rpe_stdt',
        {**FRAMES, **LIGHT},
        ['*/relative_position/*', 'TemporalTransformer/*', 'cls_TemporalTransformer'],
        [TABLE],
    ),
    ('rpe_stdt', {**FRAMES, **ABSOLUTE}, ['TemporalTransformer/*', 'cls_TemporalTransformer'], []),
    ('rpe_stdt', {**FRAMES, **SPATIAL}, [], []),
]

# Model and its keywords; the ViViT that it extends and its keywords; parameters that stay fresh.
FROM_VIVITS = [
    (
        'convivit',
        {'cnn_channels': 4},
        ('vivit_fsa', {}),
        ['cnnblock_0/*', 'embedding*/*'],
    ),
    (
        'convivit',
        {'factorization': 'dot_product', 'cnn_channels': 4},
        ('vivit_fdp', {'position': 'none'}),
        ['cnnblock_0/*', 'embedding*/*'],
    ),
    ('ctn', {'stem_channels': 4}, ('vivit_joint', {}), ['stem/*', 'embedding/*', '*_local/*']),
    ('ctn', {}, ('vivit_joint', {'pool': 'mean'}), ['stem/*', 'embedding/*', '*_local/*', 'cls']),
    ('ctn', {'embed': 'tubelet', 'position': 'learned'}, ('vivit_joint', {}), ['*_local/*']),
    (
        'rpe_stdt',
        LIGHT,
        ('vivit_fe', {'temporal_num_layers': 1}),
        ['*/relative_position/*', '*TemporalTransformer*'],
    ),
    ('rpe_stdt', ABSOLUTE, ('vivit_fe', {'temporal_num_layers': 0}), ['*TemporalTransformer*']),
]

OWN = [
    ('convivit', {'cnn_channels': 4}),
    ('ctn', {'stem_channels': 4, 'position': 'learned'}),
    ('rpe_stdt', LIGHT),
    ('rpe_stdt', ABSOLUTE),
    ('rpe_stdt', SPATIAL),
]


def matches(path, patterns):
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def origin_in_vit(path):
    """The name in an image ViT of the parameter that a model's parameter starts from."""
    if path.startswith('posembed_input'):
        return TABLE
    path = path.replace('cls_SpatialTransformer', 'cls').replace('SpatialT', 'T')
    for ours, theirs in [('_space/', '_0/'), ('LayerNorm_mlp/', 'LayerNorm_1/')]:
        path = path.replace(ours, theirs)
    return path.replace('MlpBlock/', 'MlpBlock_0/')


def make_card(name, spec=SPEC, num_classes=3, **keywords):
    own = {} if name.startswith('vivit') or name == 'ctn' else {'tubelet_size': (1, 8, 8)}
    model = {'name': name, 'tubelet_size': (2, 8, 8), **SIZES, **own, **keywords}
    return ModelCard({**model, 'num_classes': num_classes}, spec, numbered_labels(num_classes))


def make_params(card, seed):
    rng = np.random.default_rng(seed)
    shapes = abstract_params(create_model(**card.model), card.preprocessing.clip_shape)
    return jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), shapes)


def make_weights(card):
    return Weights('weights', card, make_params(card, 0), clip_grid(card))


def start_from(card, weights, **choices):
    """Fresh, given and resulting parameters by path, and the report."""
    fresh = make_params(card, 1)
    model, clip_shape = create_model(**card.model), card.preprocessing.clip_shape
    params, report = init_from(model, fresh, weights, clip_shape=clip_shape, **choices)
    flat = [flax.traverse_util.flatten_dict(x, sep='/') for x in (fresh, weights.params, params)]
    return *flat, report


def unused(report):
    return {entry.name for entry in report.entries if entry.status == 'unused'}


@pytest.mark.parametrize(('name', 'keywords', 'kept', 'not_used'), FROM_IMAGES, ids=str)
def test_every_parameter_has_its_origin_in_the_image_vit(
    name, keywords, kept, not_used, image_vit, video_model, start
):
    if name == 'ctn':
        keywords = {'tubelet_size': (3, 4, 4), **keywords}
    vit = image_vit(True)
    fresh, params, report = start(video_model(name, **keywords), vit)
    entries = {entry.name: entry for entry in report.entries if entry.status != 'unused'}
    assert entries.keys() == params.keys() == fresh.keys()
    for path, value in params.items():
        entry, is_zero = entries[path], '_time/out/' in path
        if matches(path, [*kept, 'output_projection/*']):
            assert (entry.status, entry.source) == ('new', ''), path
            np.testing.assert_array_equal(value, 0 * fresh[path] if is_zero else fresh[path])
            continue
        origin, status = origin_in_vit(path), 'copied'
        expected = vit[origin]
        if path == 'embedding/kernel':
            status, length = 'inflated', value.shape[0]
            expected = np.stack([expected * (frame == length // 2) for frame in range(length)])
        elif origin == TABLE and not path.startswith('Spatial'):
            status, repeats = 'inflated', (value.shape[1] - 1) // 6
            expected = np.concatenate([expected[:, :1], *repeats * [expected[:, 1:]]], 1)
        assert (entry.status, entry.source) == (status, origin), path
        np.testing.assert_array_equal(value, expected, err_msg=path)
    assert unused(report) == {*not_used, 'output_projection/kernel', 'output_projection/bias'}


@pytest.mark.parametrize('choice', ['pretrained', 'fresh'])
def test_temporal_attention_of_convivit_starts_as_chosen(choice, image_vit, video_model, start):
    vit, model = image_vit(True), video_model('convivit', **FRAMES, cnn_channels=4)
    fresh, params, _ = start(model, vit, temporal_attention_init=choice)
    for path in (path for path in fresh if 'Attention_time/' in path):
        expected = vit[path.replace('_time', '_0')] if choice == 'pretrained' else fresh[path]
        np.testing.assert_array_equal(params[path], expected)


@pytest.mark.parametrize('name', ['ctn', 'rpe_stdt'])
def test_class_token_stays_new_if_the_vit_has_none(name, image_vit, video_model, start):
    keywords = {**FRAMES, **SPATIAL} if name == 'rpe_stdt' else {'embed': 'tubelet'}
    fresh, params, report = start(video_model(name, **keywords), image_vit(False))
    token = 'cls_SpatialTransformer' if name == 'rpe_stdt' else 'cls'
    np.testing.assert_array_equal(params[token], fresh[token])
    assert {entry.status for entry in report.entries if entry.name == token} == {'new'}


def test_new_classifier_must_be_named(image_vit, video_model, start):
    with pytest.raises(UserError, match=r'--config\.init\.reinit=head'):
        start(video_model('ctn'), image_vit(True), reinit=())


@pytest.mark.parametrize('name', ['convivit', 'ctn', 'rpe_stdt'])
def test_other_layers_and_unknown_weights_are_errors(name, image_vit, video_model, start):
    model = video_model(name, **(FRAMES if name != 'ctn' else {}))
    for layers, status in ((1, 'new'), (3, 'unused')):
        with pytest.raises(UserError, match=rf'\n{status} .*encoderblock_\d/MlpBlock'):
            start(model, image_vit(True, layers=layers))
    with pytest.raises(UserError, match=r'\nunused +adapter/kernel'):
        start(model, {**image_vit(True), 'adapter/kernel': np.zeros(3, np.float32)})


@pytest.mark.parametrize(
    ('mapping', 'tubelet_init'),
    [('conv', 'central_frame'), ('conv', 'filter_inflation'), ('linear', 'central_frame')],
)
def test_ctn_of_one_time_index_sees_what_the_vit_does(
    mapping, tubelet_init, image_vit, image_features, video_model, start
):
    vit = image_vit(True)
    model = video_model('ctn', embed='tubelet', position='learned', mapping=mapping)
    clip_shape = (3, 8, 12)
    _, params, _ = start(model, vit, clip_shape, tubelet_init=tubelet_init)
    images = np.random.default_rng(2).uniform(-1, 1, (2, 8, 12, 3)).astype(np.float32)
    clip = np.repeat(images[:, None], 3, axis=1)
    variables = jax.jit(model.init)(jax.random.key(0), clip)
    for path, value in flax.traverse_util.flatten_dict(variables['params'], sep='/').items():
        if '_local/' in path:  # initially the identity
            params[path] = value
    variables['params'] = flax.traverse_util.unflatten_dict(params, sep='/')
    features = jax.jit(model.apply)(variables, clip).features
    # Batch norm divides by √(1 + 1e-5).
    np.testing.assert_allclose(features, image_features(vit, images), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('pos_embed', ['frame', 'absolute', 'rpe'])
def test_frames_of_rpe_stdt_are_seen_as_the_vit_does(
    pos_embed, image_vit, image_features, video_model, start
):
    vit = image_vit(True)
    model = video_model('rpe_stdt', **FRAMES, pos_embed=pos_embed, temporal='none')
    _, params, _ = start(model, vit)
    if (
        pos_embed == 'rpe'
    ):  # its tables are zero initially, and the ViT's position table is not used
        params = {k: 0 * x if 'relative_position' in k else x for k, x in params.items()}
        vit[TABLE] *= 0
    clip = np.random.default_rng(3).uniform(-1, 1, (2, *CLIP_SHAPE, 3)).astype(np.float32)
    variables = {'params': flax.traverse_util.unflatten_dict(params, sep='/')}
    features = jax.jit(model.apply)(variables, clip).features
    expected = image_features(vit, clip.reshape(-1, *clip.shape[2:])).reshape(2, 6, -1).mean(1)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(('name', 'keywords', 'vivit', 'kept'), FROM_VIVITS, ids=str)
def test_every_parameter_has_its_origin_in_the_vivit(name, keywords, vivit, kept):
    source_name, source_keywords = vivit
    weights = make_weights(make_card(source_name, **source_keywords))
    fresh, source, params, report = start_from(make_card(name, **keywords), weights)
    statuses = {x.name: x.status for x in report.entries if x.status != 'unused'}
    assert statuses.keys() == params.keys()
    for path, value in params.items():
        if matches(path, kept):
            expected, status = fresh[path], 'new'
        elif path == 'posembed_input/pos_embedding':
            table, status = source[f'Spatial{TABLE}'], 'inflated'
            expected = np.concatenate([table[:, :1], *4 * [table[:, 1:]]], 1)
        elif path == 'embedding/kernel' and name == 'rpe_stdt':
            expected, status = source[path].sum(0, keepdims=True), 'resized'
        else:
            expected, status = source[path], 'copied'
        assert statuses[path] == status, path
        np.testing.assert_allclose(value, expected, rtol=1e-6, err_msg=path)
    allowed = ['cls*', '*posembed_input/*', 'TemporalTransformer/*', 'embedding/*']
    assert all(matches(path, allowed) for path in unused(report))


def test_vivit_that_a_model_does_not_extend_is_refused():
    weights = make_weights(make_card('vivit_fe', temporal_num_layers=1))
    with pytest.raises(UserError, match=r"'vivit_fe'.* vivit_joint or a ViT for images"):
        start_from(make_card('ctn'), weights)
    weights = make_weights(make_card('vivit_fdp'))
    with pytest.raises(UserError, match=r'\nnew .*LayerNorm_space'):
        start_from(make_card('convivit'), weights)


def test_classifier_of_a_vivit_is_copied_or_named():
    weights = make_weights(make_card('vivit_joint'))
    with pytest.raises(UserError, match=r'--config\.init\.reinit=head'):
        start_from(make_card('ctn', num_classes=5), weights)
    fresh, _, params, _ = start_from(make_card('ctn', num_classes=5), weights, reinit=('head',))
    np.testing.assert_array_equal(
        params['output_projection/kernel'], fresh['output_projection/kernel']
    )


@pytest.mark.parametrize(('name', 'keywords'), OWN, ids=str)
def test_own_checkpoint_has_the_same_bits(name, keywords):
    card = make_card(name, **keywords)
    weights = make_weights(card)
    model = create_model(**card.model)
    shapes = abstract_params(model, SPEC.clip_shape)
    params, report = init_from(model, shapes, weights, clip_shape=SPEC.clip_shape)
    jax.tree.map(np.testing.assert_array_equal, params, weights.params)
    assert {entry.status for entry in report.entries} == {'copied'}


@pytest.mark.parametrize(('name', 'keywords'), OWN, ids=str)
def test_own_checkpoint_of_other_clips_and_classes(name, keywords):
    weights = make_weights(make_card(name, **keywords))
    spec = dataclasses.replace(SPEC, num_frames=8, short_side=32, crop_size=32)
    card = make_card(name, spec, num_classes=5, **keywords)
    fresh, source, params, report = start_from(card, weights, reinit=('head',))
    for entry in report.entries:
        if entry.status == 'unused':
            assert entry.name.startswith('output_projection')
        elif entry.name.startswith('output_projection'):
            np.testing.assert_array_equal(params[entry.name], fresh[entry.name])
        elif entry.name.endswith('pos_embedding'):
            assert entry.status == 'resized'
            assert params[entry.name].shape == fresh[entry.name].shape
            np.testing.assert_array_equal(params[entry.name][:, 0], source[entry.name][:, 0])
        else:
            assert entry.status == 'copied'
            np.testing.assert_array_equal(params[entry.name], source[entry.name])


def test_single_frame_clips_are_not_taken_for_images():
    spec = dataclasses.replace(SPEC, num_frames=1)
    card = make_card('rpe_stdt', spec, **SPATIAL)
    assert not make_weights(card).is_image_model


def test_order_of_attention_that_convivit_lacks_is_told():
    weights = make_weights(make_card('vivit_fsa', attention_order='time_space'))
    (line,) = describe_differences(make_card('convivit'), weights)
    assert "attention_order='time_space', not 'space_time'" in line


def test_what_no_parameter_tells_is_told():
    weights = make_weights(make_card('rpe_stdt', **LIGHT))
    lines = describe_differences(make_card('rpe_stdt', **{**LIGHT, 'subsample': 'max'}), weights)
    assert lines == ["the weights were trained with model.subsample='topk', not 'max'"]


def test_parameters_stay_in_float32(image_vit, video_model, start):
    vit = {name: value.astype(np.float16) for name, value in image_vit(True).items()}
    _, params, _ = start(video_model('rpe_stdt', **FRAMES, **ABSOLUTE), vit)
    assert {value.dtype for value in params.values()} == {jnp.dtype('float32')}
