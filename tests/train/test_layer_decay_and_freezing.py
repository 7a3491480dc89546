import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vivit_jax.config.schema import default_config
from vivit_jax.errors import UserError
from vivit_jax.models.registry import create_model
from vivit_jax.parameter_names import parameter_names
from vivit_jax.train.freezing import Hold, find_frozen
from vivit_jax.train.layer_decay import layer_scales
from vivit_jax.train.optimizer import create_optimizer

TINY = {'hidden_size': 8, 'num_layers': 2, 'num_heads': 2, 'mlp_dim': 8, 'num_classes': 3}


def _params(name, **keywords):
    model = create_model(name, tubelet_size=(2, 4, 4), **TINY, **keywords)
    init = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 4, 8, 8, 3)))
    return jax.tree.map(lambda x: np.ones(x.shape, np.float32), init['params'])


def _flat(params, tree):
    names = jax.tree.leaves(parameter_names(params))
    return dict(zip(names, jax.tree.leaves(tree), strict=True))


def test_factorized_encoder_decays_through_both_encoders():
    params = _params('vivit_fe', temporal_num_layers=1)
    scales = _flat(params, layer_scales(params, 0.5))
    expected = {
        'output_projection/kernel': 1,
        'TemporalTransformer/encoder_norm/scale': 1 / 2,
        'TemporalTransformer/encoderblock_0/LayerNorm_1/bias': 1 / 2,
        'TemporalTransformer/posembed_input/pos_embedding': 1 / 4,
        'cls_TemporalTransformer': 1 / 4,
        'SpatialTransformer/encoder_norm/bias': 1 / 4,
        'SpatialTransformer/encoderblock_1/MlpBlock_0/Dense_0/kernel': 1 / 4,
        'SpatialTransformer/encoderblock_0/MlpBlock_0/Dense_0/kernel': 1 / 8,
        'SpatialTransformer/posembed_input/pos_embedding': 1 / 16,
        'cls_SpatialTransformer': 1 / 16,
        'embedding/kernel': 1 / 16,
    }
    assert {name: scales[name] for name in expected} == expected
    assert set(scales.values()) == set(expected.values())


@pytest.mark.parametrize('name', ['vivit_joint', 'vivit_fsa', 'vivit_fdp'])
def test_every_layer_of_one_encoder_has_its_own_rate(name):
    params = _params(name)
    scales = _flat(params, layer_scales(params, 0.5))
    assert sorted(set(scales.values())) == [1 / 8, 1 / 4, 1 / 2, 1]
    assert scales['embedding/bias'] == 1 / 8
    assert scales['Transformer/encoderblock_1/' + _norm(name)] == 1 / 2
    assert scales['Transformer/encoder_norm/scale'] == 1 / 2


def test_subsampling_has_the_rate_of_its_block():
    params = _params('rpe_stdt', subsample='conv', subsample_layers=(1,), temporal_num_layers=2)
    scales = _flat(params, layer_scales(params, 0.5))
    assert scales['TemporalTransformer/subsample_1/kernel'] == 1 / 2
    assert scales['TemporalTransformer/encoderblock_1/LayerNorm_1/bias'] == 1 / 2


def _norm(name):
    return ('LayerNorm_mlp' if name == 'vivit_fsa' else 'LayerNorm_1') + '/scale'


def test_pooling_has_the_rate_of_the_head():
    params = _params('vivit_joint', pool='cls_attention')
    scales = _flat(params, layer_scales(params, 0.5))
    assert scales['attention_pool/queries'] == scales['output_projection/kernel'] == 1


@pytest.mark.parametrize('optimizer', ['sgd', 'adamw', 'lamb', 'adafactor', 'muon'])
def test_updates_are_those_of_the_plain_optimizer_times_the_scale(optimizer):
    params = _params('vivit_joint')
    rng = np.random.default_rng(0)
    grads = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), params)
    found = {}
    for decay in (1.0, 0.5):
        config = default_config().train
        config.update(optimizer=optimizer, weight_decay=0.1, layer_decay=decay, clip_norm=0.0)
        transform = create_optimizer(config, optax.constant_schedule(0.1))
        found[decay], _ = jax.jit(transform.update)(grads, transform.init(params), params)
    expected = jax.tree.map(lambda x, s: x * s, found[1.0], layer_scales(params, 0.5))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found[0.5], expected)


@pytest.mark.parametrize(
    ('patterns', 'frozen'),
    [
        ((), 0),
        (('^cls$',), 1),
        (('^embedding/',), 2),
        (('^embedding/', 'embedding/bias', '^cls$'), 3),
        (('encoderblock_0/',), 16),
    ],
)
def test_patterns_freeze_what_they_are_found_in(patterns, frozen):
    params = _params('vivit_joint')
    found = _flat(params, find_frozen(params, patterns))
    assert sum(found.values()) == frozen
    assert all(any(p.strip('^$') in name for p in patterns) for name, is_ in found.items() if is_)


@pytest.mark.parametrize(
    ('pattern', 'message'),
    [
        ('^Embedding/', "'\\^Embedding/' is found in no name of a parameter, such as Transformer/"),
        ('block_(', "'block_\\(' is no regular expression"),
        ('', 'leaves nothing to train'),
    ],
)
def test_patterns_without_effect_are_errors(pattern, message):
    with pytest.raises(UserError, match=message):
        find_frozen(_params('vivit_joint'), (pattern,))


def test_frozen_parameters_have_no_momentum_and_no_decay():
    params = _params('vivit_joint')
    config = default_config().train
    config.update(
        optimizer='sgd', weight_decay=0.1, clip_norm=1.0, freeze=('^Transformer/', '^cls')
    )
    transform = create_optimizer(config, optax.constant_schedule(0.1))
    state = transform.init(params)
    trained = ('embedding', 'output_projection')
    sizes = sorted(x.size for x in jax.tree.leaves(state) if x.ndim)
    assert sizes == sorted(x.size for name in trained for x in params[name].values())

    grads = jax.tree.map(np.zeros_like, params)
    updates, _ = transform.update(grads, state, params)
    moved = {name for name, x in updates.items() if any(map(np.any, jax.tree.leaves(x)))}
    assert moved == set(trained)  # by weight decay


def test_held_parameters_rise_to_the_plain_updates():
    params = _params('vivit_joint')
    config = default_config().train
    config.update(optimizer='adamw', weight_decay=0.1, layer_decay=0.5)
    plain, held = (
        create_optimizer(config, optax.constant_schedule(0.1), hold=hold)
        for hold in (Hold(), Hold(('^(?!output_projection)',), steps=2, rise=4))
    )
    states = {plain: plain.init(params), held: held.init(params)}
    rng = np.random.default_rng(0)
    for scale in (0, 0, 0, 1 / 4, 1 / 2, 3 / 4, 1, 1):
        grads = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), params)
        updates = {}
        for optimizer in (plain, held):
            updates[optimizer], states[optimizer] = optimizer.update(
                grads, states[optimizer], params
            )
        found, expected = (_flat(params, updates[optimizer]) for optimizer in (held, plain))
        for name in found:
            factor = 1 if name.startswith('output_projection') else scale
            np.testing.assert_allclose(found[name], factor * expected[name], rtol=1e-6)


def test_hold_without_effect_is_an_error():
    params = _params('vivit_joint')
    config = default_config().train
    optimizer = create_optimizer(config, lambda step: 0.1, hold=Hold(('^Head',), 2))
    with pytest.raises(UserError, match=r'train.hold: .*Head.* is found in no name'):
        optimizer.init(params)
