"""Weights for models of depth, and of RGB and depth."""

import dataclasses

import flax.traverse_util
import jax
import numpy as np
import pytest

from vivit_jax.errors import UserError
from vivit_jax.heads import map_heads
from vivit_jax.model_card import ModelCard
from vivit_jax.models.registry import MODELS, create_model, list_models, model_keywords
from vivit_jax.models.variables import abstract_clip, abstract_variables
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.weights.init_from import find_untrained_heads, init_from
from vivit_jax.weights.streams import fuse_weights, start_variables
from vivit_jax.weights.weights import Weights, clip_grid

SPEC = Preprocessing(num_frames=4, short_side=16, crop_size=16)
SIZES = {'hidden_size': 16, 'num_layers': 1, 'num_heads': 2, 'mlp_dim': 24}
IMAGE = {'tokenizer': 'uniform_frames', 'num_sampled_frames': 1, 'tubelet_size': (1, 8, 8)}
CLASSES = ('clap', 'jump', 'run')
ONE_SHAPE = dataclasses.replace(SPEC, num_frames=1)

pytestmark = pytest.mark.usefixtures('exact_matmuls')


def _weights(name='vivit_fe', *, seed=0, spec=SPEC, classes=CLASSES, **keywords):
    """Random weights of a trained model."""
    known = model_keywords(name)
    length, *_ = known.get('tubelet_size', (2,))
    sizes = {**SIZES, 'tubelet_size': (length, 8, 8), **MODELS[name].TINY, **keywords}
    sizes = {keyword: value for keyword, value in sizes.items() if keyword in known}
    model = {'name': name, 'num_classes': map_heads(len, classes), **sizes}
    rng, shapes = np.random.default_rng(seed), _shapes(model, spec)
    params = jax.tree.map(lambda x: rng.normal(0, 0.4, x.shape), shapes['params'])
    batch_stats = jax.tree.map(lambda x: rng.uniform(0.5, 1.5, x.shape), shapes['batch_stats'])
    params, batch_stats = jax.tree.map(lambda x: x.astype(np.float32), (params, batch_stats))
    card = ModelCard(model, spec, classes)
    return Weights('run', card, params, clip_grid(card), batch_stats=batch_stats)


def _shapes(model, spec=SPEC):
    return abstract_variables(create_model(**model), spec.clip_shape)


def _start(weights, depth_weights=None, **keywords):
    """A model of other keywords, the variables that start from weights, and the report."""
    model = create_model(**{**weights.card.model, **keywords})
    how = {'clip_shape': SPEC.clip_shape}
    return model, *start_variables(model, _fresh(model), weights, depth_weights, **how)


def _fresh(model):
    shapes = abstract_variables(model, SPEC.clip_shape)
    return jax.tree.map(lambda x: np.full(x.shape, 9, x.dtype), shapes)


def _assert_equal(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def _clips(model, batch_size=2):
    rng = np.random.default_rng(0)
    shapes = abstract_clip(model.spec, SPEC.clip_shape, batch_size)
    return jax.tree.map(lambda x: rng.uniform(-1, 1, x.shape).astype(np.float32), shapes)


@pytest.mark.parametrize('name', [name for name in list_models() if name != 'convivit'])
def test_one_channel_gives_the_results_of_equal_colours(name):
    weights = _weights(name)
    model, variables, report = _start(weights, modality='depth', depth_channels=1)
    summed = [entry for entry in report.entries if 'summed over colours' in entry.detail]
    assert summed and all(entry.name.endswith('/kernel') for entry in summed)
    clip = _clips(model)
    output = jax.jit(model.apply)(variables, clip)
    of_colours = create_model(**weights.card.model, modality='depth')  # of three channels
    before = {'params': weights.params, 'batch_stats': weights.batch_stats}
    expected = jax.jit(of_colours.apply)(before, clip.repeat(3, axis=-1))
    np.testing.assert_allclose(output.features, expected.features, rtol=1e-4, atol=2e-5)
    assert np.std(expected.features) > 0.1


def test_norms_of_colours_do_not_fit_one_channel():
    message = r'misfit  cnnblock_0/norm_in/bias +1 .*needed \(1,\)(.*\n)+.* and depth_channels to'
    with pytest.raises(UserError, match=message):
        _start(_weights('convivit'), modality='depth', depth_channels=1)


def test_three_channels_are_taken_as_they_are():
    weights = _weights()
    _, variables, report = _start(weights, modality='depth')
    _assert_equal(variables['params'], weights.params)
    assert {entry.status for entry in report.entries} == {'copied'}


def test_one_channel_starts_from_an_image_vit():
    vit = _weights('vivit_joint', spec=ONE_SHAPE, **IMAGE)
    keywords = {'tokenizer': 'tubelet', 'tubelet_size': (2, 8, 8), 'modality': 'depth'}
    model = create_model(**{**vit.card.model, **keywords, 'depth_channels': 1})
    how = {'clip_shape': SPEC.clip_shape, 'reinit': ('head',)}
    variables, report = start_variables(model, _fresh(model), vit, **how)
    kernel = variables['params']['embedding']['kernel']
    np.testing.assert_array_equal(kernel[0], 0)
    expected = vit.params['embedding']['kernel'].sum(2, keepdims=True)
    np.testing.assert_allclose(kernel[1], expected, rtol=1e-5, atol=1e-6)
    [entry] = [entry for entry in report.entries if entry.name == 'embedding/kernel']
    assert (entry.status, entry.detail) == ('inflated', 'central frame of 2, summed over colours')


def test_both_streams_start_from_one_model():
    weights = _weights('ctn')
    _, variables, report = _start(weights, modality='rgbd')
    for stream in ('rgb', 'depth'):
        _assert_equal(variables['params'][stream], weights.params)
        _assert_equal(variables['batch_stats'][stream], weights.batch_stats)
    names = {entry.name for entry in report.entries}
    assert names == set(flax.traverse_util.flatten_dict(variables['params'], sep='/'))


def test_streams_start_from_two_models_and_their_classes_are_matched():
    rgb, depth = _weights(), _weights(seed=1, modality='depth', classes=CLASSES[::-1])
    model = create_model(**{**rgb.card.model, 'modality': 'rgbd'})
    variables, _ = start_variables(
        model, _fresh(model), rgb, depth, label_names=CLASSES, clip_shape=SPEC.clip_shape
    )
    _assert_equal(variables['params']['rgb'], rgb.params)
    head = variables['params']['depth'].pop('output_projection')
    expected = depth.params.pop('output_projection')
    _assert_equal(variables['params']['depth'], depth.params)
    _assert_equal(head, {key: x[..., ::-1] for key, x in expected.items()})


def test_streams_come_from_both_and_go_apart_again():
    rgb, depth = _weights('ctn'), _weights('ctn', seed=1, modality='depth')
    both = fuse_weights(rgb, depth)
    for modality, weights in (('rgb', rgb), ('depth', depth)):
        _, variables, _ = _start(both, modality=modality)
        _assert_equal(variables['params'], weights.params)
        _assert_equal(variables['batch_stats'], weights.batch_stats)
    _, variables, _ = _start(both)
    _assert_equal(variables, {'params': both.params, 'batch_stats': both.batch_stats})


def test_depth_cannot_start_colours():
    depth = _weights(modality='depth')
    message = 'are of a model for depth, and a model for rgb cannot start from them'
    with pytest.raises(UserError, match=message):
        _start(depth, modality='rgb')
    with pytest.raises(UserError, match=f'^rgb: .*{message}'):
        _start(depth, modality='rgbd')
    both = fuse_weights(_weights(), depth)
    model = create_model(**depth.card.model)
    with pytest.raises(UserError, match='are of a model for rgbd'):
        init_from(model, depth.params, both, clip_shape=SPEC.clip_shape)


def test_untrained_heads_of_streams_are_found():
    params = fuse_weights(_weights(), _weights(modality='depth')).params
    assert find_untrained_heads(params) == []
    params['depth']['output_projection']['kernel'] *= 0
    assert find_untrained_heads(params) == ['depth/output_projection']


def test_fused_weights_are_those_of_two_models():
    rgb = _weights(dropout_rate=0.1)
    depth = _weights(seed=1, modality='depth', depth_channels=1)
    both = fuse_weights(rgb, depth)
    expected = {**rgb.card.model, 'modality': 'rgbd', 'depth_channels': 1}
    assert both.card == dataclasses.replace(rgb.card, model=expected)
    _assert_equal(both.params, {'rgb': rgb.params, 'depth': depth.params})
    shapes = jax.tree.map(lambda x: x.shape, _shapes(both.card.model)['params'])
    assert jax.tree.map(np.shape, both.params) == shapes


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'hidden_size': 8}, r'differ:\n  model.hidden_size: 16 of RGB, 8 of depth$'),
        ({'name': 'vivit_joint'}, 'model: FactorizedEncoder of RGB, Joint of depth'),
        ({'classes': ('clap', 'run', 'jump')}, "class 1 is 'jump' of RGB, 'run' of depth"),
        ({'classes': ('clap', 'run')}, 'classes: 3 of RGB, 2 of depth'),
        ({'classes': {'verb': CLASSES}}, r"heads: \[''\] of RGB, \['verb'\] of depth"),
        (
            {'spec': dataclasses.replace(SPEC, frame_stride=1), 'gelu': 'exact'},
            "model.gelu: 'tanh' of .*\n  preprocessing.frame_stride: 2 of RGB, 1 of depth",
        ),
        ({'modality': 'rgb'}, 'a model for depth is needed, .* of a model for rgb'),
    ],
    ids=['size', 'model', 'order', 'number', 'heads', 'two', 'modality'],
)
def test_models_that_differ_are_not_fused(changes, message):
    depth = _weights(**{'modality': 'depth', **changes})
    with pytest.raises(UserError, match=message):
        fuse_weights(_weights(), depth)
