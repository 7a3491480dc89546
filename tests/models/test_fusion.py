"""`Fusion`: a model for RGB and a model for depth, whose scores are averaged."""

import functools

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_jax.costs import count_costs, count_parameters, model_call, part_calls, plain_form
from vivit_jax.evaluation.forward import create_forward
from vivit_jax.models.registry import create_model, find_keywords
from vivit_jax.models.variables import abstract_clip
from vivit_jax.parallel.rules import find_rule
from vivit_jax.video.preprocessing import Preprocessing

HEADS = {'verb': 4, 'noun': 3}  # not in the order of the alphabet

pytestmark = pytest.mark.usefixtures('exact_matmuls')


@pytest.fixture
def create_streams(create_tiny, random_clip, random_variables):
    """Makes a fusion and the models for RGB and for depth, their variables and clips."""

    def create(name='vivit_joint', **keywords):
        keywords = {'num_layers': 1, 'depth_channels': 1, **keywords}
        fusion = create_tiny(name, modality='rgbd', **keywords)
        models = {x: create_tiny(name, modality=x, **keywords) for x in ('rgb', 'depth')}
        clips = {'rgb': random_clip(), 'depth': random_clip((2, 4, 16, 16, 1), seed=3)}
        variables = {x: random_variables(models[x], clips[x]) for x in models}
        return fusion, models, variables, clips

    return create


def _joined(variables):
    kinds = ('params', 'batch_stats')
    return {kind: {name: x[kind] for name, x in variables.items()} for kind in kinds}


def _softmax(x):
    exponents = np.exp(np.asarray(x, np.float64))
    return exponents / exponents.sum(-1, keepdims=True)


@functools.partial(jax.jit, static_argnames=('model', 'capture_attention'))
def _apply(model, variables, clip, capture_attention=False):
    return model.apply(variables, clip, capture_attention=capture_attention)


@pytest.mark.parametrize('fusion', ['softmax_mean', 'logit_mean'])
@pytest.mark.parametrize('classes', [5, HEADS], ids=str)
def test_output_is_the_mean_of_two_models(create_streams, fusion, classes):
    model, models, variables, clips = create_streams(fusion=fusion, num_classes=classes)
    output = _apply(model, _joined(variables), clips, capture_attention=True)
    alone = {x: _apply(models[x], variables[x], clips[x], capture_attention=True) for x in models}
    features = np.concatenate([alone['rgb'].features, alone['depth'].features], axis=1)
    np.testing.assert_allclose(output.features, features, rtol=1e-4, atol=1e-5)

    def check(found, rgb, depth):
        assert np.abs(rgb - depth).max() > 0.1
        if fusion == 'logit_mean':
            np.testing.assert_allclose(found, (rgb + depth) / 2, rtol=1e-4, atol=1e-5)
        else:
            expected = (_softmax(rgb) + _softmax(depth)) / 2
            np.testing.assert_allclose(np.exp(found), expected, rtol=1e-4, atol=1e-6)

    jax.tree.map(check, output.logits, alone['rgb'].logits, alone['depth'].logits)
    for kind in ('logits', 'intermediates'):
        expected = {name: getattr(x, kind) for name, x in alone.items()}
        found = output.streams if kind == 'logits' else output.intermediates
        assert jax.tree.structure(found) == jax.tree.structure(expected)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, 1e-4, 1e-5), found, expected)


def test_softmax_mean_is_finite_for_extreme_logits(create_streams):
    model, _, variables, clips = create_streams()
    variables = jax.tree.map(lambda x: 1e4 * x, variables)
    output = _apply(model, _joined(variables), clips)
    assert np.isfinite(output.logits).all()
    assert np.abs(output.streams['rgb']).max() > 1e3


@pytest.mark.parametrize('form', [{'scan_layers': True, 'remat': 'block'}, {'remat': 'dots'}])
def test_form_changes_nothing(create_streams, create_tiny, form):
    model, _, variables, clips = create_streams('ctn', num_layers=2)
    other = create_tiny('ctn', num_layers=2, depth_channels=1, modality='rgbd', **form)
    output, expected = (_apply(x, _joined(variables), clips) for x in (other, model))
    np.testing.assert_allclose(output.logits, expected.logits, rtol=1e-3, atol=1e-4)
    assert plain_form(other) == plain_form(model)


def test_costs_are_the_sums(create_streams):
    model, models, _, _ = create_streams('vivit_fe')

    def count(model):
        call = model_call(plain_form(model), abstract_clip(model.spec, (4, 16, 16)))
        return count_costs(call)['GMAC'], count_parameters(call.params)

    whole = count(model)
    parts = [count(part) for part in models.values()]
    np.testing.assert_allclose(whole, np.sum(parts, axis=0), rtol=1e-12)
    assert list(part_calls(model, abstract_clip(model.spec, (4, 16, 16)))) == ['rgb', 'depth']


def test_every_parameter_is_split_as_without_fusion(create_streams):
    _, _, variables, _ = create_streams('ctn')
    for name in flax.traverse_util.flatten_dict(_joined(variables)['params'], sep='/'):
        assert find_rule(name) == find_rule(name.split('/', 1)[1])


def test_keywords_make_the_same_fusion(create_tiny):
    model = create_tiny('vivit_fe', modality='rgbd', fusion='logit_mean')
    keywords = find_keywords(model.spec)
    assert (keywords['modality'], keywords['fusion']) == ('rgbd', 'logit_mean')
    assert create_model(**keywords) == model


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda clips: clips['rgb'], r"takes a dict \{'rgb': clips, 'depth': clips\}, and not "),
        (lambda clips: {'rgb': clips['rgb']}, r"this dict has the keys \['rgb'\]"),
        (lambda clips: {**clips, 'flow': 0}, r"has the keys \['depth', 'flow', 'rgb'\]"),
        (
            lambda clips: {**clips, 'depth': clips['depth'][:, :2]},
            r'RGB, \[2, 4, 16, 16, 3\], and of depth, \[2, 2, 16, 16, 1\], must have the same',
        ),
        (
            lambda clips: {**clips, 'depth': clips['rgb']},
            r"modality='depth' takes clips of 1 channels; this array is \[2, 4, 16, 16, 3\]",
        ),
    ],
    ids=['array', 'missing', 'unknown', 'shape', 'channels'],
)
def test_other_clips_are_errors(create_tiny, random_clip, change, message):
    model = create_tiny('vivit_joint', modality='rgbd', depth_channels=1)
    clips = {'rgb': random_clip(), 'depth': random_clip((2, 4, 16, 16, 1))}
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), change(clips))


def test_pixels_of_rgb_alone_are_an_error(create_tiny):
    model = create_tiny('vivit_joint', modality='rgbd')
    forward = create_forward(model, Preprocessing(num_frames=4, short_side=16, crop_size=16))
    with pytest.raises(ValueError, match=r'takes a dict .*, and not ndarray'):
        forward({}, np.zeros((2, 4, 16, 16, 3), np.uint8))


def test_no_gradient_of_a_stream_reaches_the_other(create_streams):
    model, _, variables, clips = create_streams()

    def loss(params):
        output = model.apply({'params': params}, clips)
        return jnp.square(output.streams['rgb']).sum()

    grads = jax.jit(jax.grad(loss))(_joined(variables)['params'])
    assert max(np.abs(x).max() for x in jax.tree.leaves(grads['rgb'])) > 0.1
    assert not any(np.any(x) for x in jax.tree.leaves(grads['depth']))
