"""Starts a video model from weights of the same model for other clips and classes."""

import dataclasses

import flax.traverse_util
import jax
import numpy as np
import pytest

from vivit_jax.errors import UserError
from vivit_jax.heads import numbered_labels
from vivit_jax.model_card import ModelCard
from vivit_jax.models.registry import create_model
from vivit_jax.models.variables import abstract_params
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.weights.init_from import describe_differences, find_untrained_heads, init_from
from vivit_jax.weights.weights import Weights, clip_grid

SPEC = Preprocessing(num_frames=4, short_side=16, crop_size=16)
SIZES = {
    'hidden_size': 8,
    'num_layers': 1,
    'num_heads': 2,
    'mlp_dim': 8,
    'tubelet_size': (2, 8, 8),
}
MODELS = ['vivit_joint', 'vivit_fe', 'vivit_fsa', 'vivit_fdp']


def make_card(name, spec=SPEC, num_classes=3, **keywords):
    model = {'name': name, **SIZES, 'num_classes': num_classes, **keywords}
    if name == 'vivit_fe':
        model.setdefault('temporal_num_layers', 1)
    return ModelCard(model, spec, numbered_labels(num_classes))


def make_params(card, seed):
    rng = np.random.default_rng(seed)
    shapes = abstract_params(create_model(**card.model), card.preprocessing.clip_shape)
    return jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), shapes)


def make_weights(card):
    return Weights('weights', card, make_params(card, 0), clip_grid(card))


def start(card, weights, **choices):
    """Fresh, given and resulting parameters by path, and the report."""
    fresh = make_params(card, 1)
    model, clip_shape = create_model(**card.model), card.preprocessing.clip_shape
    params, report = init_from(model, fresh, weights, clip_shape=clip_shape, **choices)
    flat = [flax.traverse_util.flatten_dict(x, sep='/') for x in (fresh, weights.params, params)]
    return *flat, report


def statuses(report):
    return {entry.name: entry.status for entry in report.entries}


def features(card, params, clip):
    params = flax.traverse_util.unflatten_dict(params, sep='/')
    return create_model(**card.model).apply({'params': params}, clip).features


@pytest.mark.parametrize('name', MODELS)
def test_same_model_gets_the_same_bits(name):
    card = make_card(name)
    _, source, params, report = start(card, make_weights(card))
    assert set(statuses(report).values()) == {'copied'}
    for path, value in source.items():
        np.testing.assert_array_equal(params[path], value)


@pytest.mark.parametrize('name', MODELS)
def test_shapes_alone_suffice_where_nothing_is_new(name):
    card = make_card(name)
    weights = make_weights(card)
    model = create_model(**card.model)
    params, _ = init_from(
        model, abstract_params(model, SPEC.clip_shape), weights, clip_shape=SPEC.clip_shape
    )
    jax.tree.map(np.testing.assert_array_equal, params, weights.params)


@pytest.mark.parametrize('name', MODELS)
@pytest.mark.parametrize(
    'change',
    [{'num_frames': 8}, {'crop_size': 32, 'short_side': 32}],
    ids=['frames', 'resolution'],
)
def test_positions_are_resized_for_other_clips_and_all_else_is_copied(name, change):
    card = make_card(name, dataclasses.replace(SPEC, **change))
    _, source, params, report = start(card, make_weights(make_card(name)))
    resized = {path for path, status in statuses(report).items() if status == 'resized'}
    tables = {path for path in source if path.endswith('pos_embedding')}
    if name == 'vivit_fe':  # its tables have one kind of axis each
        axis = 'Temporal' if 'num_frames' in change else 'Spatial'
        tables = {path for path in tables if path.startswith(axis)}
    assert resized == tables
    for path in source.keys() - resized:
        np.testing.assert_array_equal(params[path], source[path])


def test_positions_of_more_frames_lie_between_the_old_ones():
    spec = dataclasses.replace(SPEC, num_frames=8)
    _, source, params, _ = start(make_card('vivit_fe', spec), make_weights(make_card('vivit_fe')))
    table = 'TemporalTransformer/posembed_input/pos_embedding'
    a, b = source[table][0, 1:]  # a class token comes first
    expected = [a, 0.75 * a + 0.25 * b, 0.25 * a + 0.75 * b, b]
    np.testing.assert_allclose(params[table][0, 1:], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(params[table][0, 0], source[table][0, 0])


@pytest.mark.parametrize('length', [1, 4])
def test_still_video_has_the_same_tokens_with_tubelets_of_another_length(length):
    frames = 2 * length
    card = make_card(
        'vivit_joint',
        dataclasses.replace(SPEC, num_frames=frames),
        tubelet_size=(length, 8, 8),
    )
    old = make_card('vivit_joint')
    _, source, params, report = start(card, make_weights(old))
    assert statuses(report)['embedding/kernel'] == 'resized'
    image = np.random.default_rng(2).uniform(-1, 1, (1, 1, 16, 16, 3)).astype(np.float32)
    np.testing.assert_allclose(
        features(card, params, np.repeat(image, frames, axis=1)),
        features(old, source, np.repeat(image, 4, axis=1)),
        rtol=1e-4,
        atol=1e-5,
    )


def test_new_classifier_must_be_named_and_then_stays_fresh():
    card = make_card('vivit_fe', num_classes=5)
    weights = make_weights(make_card('vivit_fe'))
    with pytest.raises(UserError) as caught:
        start(card, weights)
    message = str(caught.value)
    assert '--config.init.reinit=head' in message and '--reinit=head' in message
    assert 'output_projection/kernel' in message and 'output_projection/bias' in message
    assert 'num_layers' not in message  # advice for other problems
    fresh, source, params, report = start(card, weights, reinit=('head',))
    for path in fresh:
        origin = fresh if path.startswith('output_projection') else source
        np.testing.assert_array_equal(params[path], origin[path])
    for status in ('new', 'unused'):
        names = {entry.name for entry in report.entries if entry.status == status}
        assert names == {'output_projection/kernel', 'output_projection/bias'}


def test_named_classifier_is_new_even_if_it_would_fit():
    card = make_card('vivit_fe')
    fresh, _, params, _ = start(card, make_weights(card), reinit=('head',))
    np.testing.assert_array_equal(
        params['output_projection/kernel'], fresh['output_projection/kernel']
    )


def test_one_classifier_gives_way_to_several():
    card = make_card('vivit_fe', num_classes={'verb': 2, 'noun': 3})
    weights = make_weights(make_card('vivit_fe'))
    with pytest.raises(UserError, match='output_projection_verb'):
        start(card, weights)
    fresh, _, params, _ = start(card, weights, reinit=('head',))
    np.testing.assert_array_equal(
        params['output_projection_noun/kernel'], fresh['output_projection_noun/kernel']
    )


def test_everything_that_does_not_fit_is_listed_at_once():
    card = make_card('vivit_fe', num_layers=2, mlp_dim=16, temporal_num_layers=0, num_classes=4)
    with pytest.raises(UserError) as caught:
        start(card, make_weights(make_card('vivit_fe')))
    message = str(caught.value)
    for part in (
        'SpatialTransformer/encoderblock_1/',  # new
        'TemporalTransformer/encoderblock_0/',  # unused
        'SpatialTransformer/encoderblock_0/MlpBlock_0/Dense_0/kernel',  # misfit
        'output_projection/kernel',
    ):
        assert part in message
    assert len([line for line in message.splitlines() if line.startswith('misfit')]) >= 5


def test_another_model_is_refused_with_its_name():
    with pytest.raises(UserError, match=r"model\.name='vivit_fe'"):
        start(make_card('vivit_joint'), make_weights(make_card('vivit_fe')))


def test_unknown_part_to_reinitialize_is_refused():
    card = make_card('vivit_fe')
    with pytest.raises(UserError, match='tail'):
        start(card, make_weights(card), reinit=('tail',))


def test_silent_differences_are_told():
    old = make_card('vivit_fe', gelu='exact', layer_norm_eps=1e-12)
    spec = dataclasses.replace(SPEC, value_range=(0.0, 1.0))
    lines = '\n'.join(
        describe_differences(make_card('vivit_fe', spec, gelu='tanh'), make_weights(old))
    )
    assert "gelu='exact', not 'tanh'" in lines
    assert 'value_range=(-1.0, 1.0), not (0.0, 1.0)' in lines
    assert 'layer_norm_eps=1e-12, not 1e-06' in lines  # although the config leaves it out
    assert len(lines.splitlines()) == 3
    assert not describe_differences(old, make_weights(old))


def test_positions_without_parameters_are_told():
    old, new = (make_card('vivit_joint', position=kind) for kind in ('sincos3d', 'none'))
    (line,) = describe_differences(new, make_weights(old))
    assert line.endswith("model.position='sincos3d', not 'none'")
    assert not describe_differences(make_card('vivit_joint'), make_weights(old))  # a parameter


def test_untrained_heads_are_those_of_zeros():
    card = make_card('vivit_fe', num_classes={'verb': 2, 'noun': 3})
    params = make_params(card, 0)
    assert find_untrained_heads(params) == []
    params['output_projection_noun']['kernel'] *= 0
    assert find_untrained_heads(params) == ['output_projection_noun']
