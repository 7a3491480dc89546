"""Training of RGB and depth together is the training of each of the two alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vivit_jax.augment.policy import Augmentation
from vivit_jax.config.schema import default_config
from vivit_jax.models.registry import create_model
from vivit_jax.models.variables import abstract_variables
from vivit_jax.train.layer_decay import layer_scales
from vivit_jax.train.optimizer import create_optimizer
from vivit_jax.train.state import start_state
from vivit_jax.train.step import create_train_step
from vivit_jax.video.preprocessing import Preprocessing

SHAPE = (4, 16, 16)
SIZES = {'hidden_size': 8, 'num_layers': 1, 'num_heads': 2, 'mlp_dim': 8, 'tubelet_size': (2, 8, 8)}
SPEC = Preprocessing(num_frames=4, short_side=16, crop_size=16, depth_range=(4000, 500))
LABEL = {'verb': np.arange(6) % 4, 'noun': np.arange(6) % 3}


@pytest.fixture(scope='module')
def train():
    """Does steps of one modality; returns the state and the metrics of the last step."""
    rng = np.random.default_rng(0)
    clips = {
        'rgb': rng.integers(0, 256, (6, *SHAPE, 3), np.uint8),
        'depth': rng.integers(500, 4000, (6, *SHAPE, 1), np.uint16),
    }

    def run(modality, variables, *, name='vivit_joint', num_steps=2, accumulate=1, **settings):
        model = _create(name, modality)
        config = default_config().train
        config.update(momentum=0.9, weight_decay=0.1, clip_norm=0.05, layer_decay=0.5)
        config.update(optimizer='sgd', **settings)
        batch = {kind: clip for kind, clip in clips.items() if kind in model.spec.streams}
        schedule = optax.constant_schedule(0.5)
        optimizer = create_optimizer(config, schedule, is_fusion=modality == 'rgbd')
        step = jax.jit(
            create_train_step(
                model, optimizer, schedule, SPEC, Augmentation(), label_smoothing=0.0,
                seed=0, ema_decay=0.5, freeze=config.freeze, accumulate=accumulate,
            )
        )  # fmt: skip
        state = start_state(variables, optimizer, has_ema=True)
        for _ in range(num_steps):
            state, metrics = step(state, {**batch, 'label': LABEL})
        return state, metrics

    return run


def _create(name, modality):
    classes = {'verb': 4, 'noun': 3}
    own = {'mapping': 'linear'} if name == 'ctn' else {}  # the stem has statistics
    return create_model(
        name, modality=modality, depth_channels=1, num_classes=classes, **SIZES, **own
    )


def _variables(name, modality):
    rng = np.random.default_rng(len(modality))
    shapes = abstract_variables(_create(name, modality), SHAPE)
    params = jax.tree.map(lambda x: rng.normal(0, 0.4, x.shape), shapes['params'])
    batch_stats = jax.tree.map(lambda x: np.ones(x.shape), shapes['batch_stats'])
    variables = {'params': params, 'batch_stats': batch_stats}
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), variables)


def _joined(alone):
    kinds = [kind for kind in ('params', 'batch_stats') if alone['rgb'][kind]]
    return {'batch_stats': {}} | {kind: {x: alone[x][kind] for x in alone} for kind in kinds}


@pytest.mark.parametrize(
    ('name', 'settings'),
    [('ctn', {}), ('vivit_joint', {'accumulate': 2})],
    ids=['statistics', 'accumulate'],
)
def test_streams_train_as_they_would_alone(train, name, settings):
    alone = {x: _variables(name, x) for x in ('rgb', 'depth')}
    together, metrics = train('rgbd', _joined(alone), name=name, **settings)
    norms, losses = {}, {}
    for stream, variables in alone.items():
        expected, own = train(stream, variables, name=name, **settings)
        norms[stream], losses[stream] = own['grad_norm'], own['loss']
        for kind in ('params', 'batch_stats'):
            pairs = getattr(together, kind).get(stream, {}), getattr(expected, kind)
            jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, 1e-4, 1e-6), *pairs)
            moved = jax.tree.map(lambda x, y: np.abs(x - y).max(), variables[kind], pairs[0])
            assert not jax.tree.leaves(moved) or max(jax.tree.leaves(moved)) > 1e-3
        average = together.ema['params'][stream], expected.ema['params']
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, 1e-4, 1e-6), *average)
    # Each gradient is clipped, and by another factor.
    assert min(norms.values()) > 0.06 and np.ptp(list(norms.values())) > 0.01
    np.testing.assert_allclose(metrics['loss'], np.mean(list(losses.values())), rtol=1e-5)
    np.testing.assert_allclose(metrics['grad_norm'], np.hypot(*norms.values()), rtol=1e-4)
    heads = np.mean([metrics['verb/loss'], metrics['noun/loss']])
    np.testing.assert_allclose(metrics['loss'], heads, rtol=1e-5)


def test_a_stream_may_be_frozen(train):
    variables = _joined({x: _variables('vivit_joint', x) for x in ('rgb', 'depth')})
    state, _ = train('rgbd', variables, num_steps=1, freeze=('^rgb/',))
    equal = jax.tree.map(lambda x, y: np.array_equal(x, y), state.params, variables['params'])
    assert all(jax.tree.leaves(equal['rgb']))
    assert not equal['depth']['embedding']['kernel']


def test_layers_of_both_streams_decay_alike():
    params = {x: _variables('vivit_joint', x)['params'] for x in ('rgb', 'depth')}
    scales = layer_scales(params, 0.5)
    for stream in params:
        assert scales[stream] == layer_scales(params[stream], 0.5)
