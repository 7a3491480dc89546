import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vivit_jax.config.schema import default_config
from vivit_jax.errors import UserError
from vivit_jax.train.optimizer import create_optimizer
from vivit_jax.train.schedule import create_schedule


@pytest.mark.parametrize('warmup_steps', [0, 1, 10, 99])
def test_schedule_rises_linearly_and_falls_as_half_a_cosine(warmup_steps):
    schedule = create_schedule(0.4, warmup_steps, 100)
    for step in range(101):
        if step < warmup_steps:
            expected = 0.4 * step / warmup_steps
        else:
            done = (step - warmup_steps) / (100 - warmup_steps)
            expected = 0.2 * (1 + np.cos(np.pi * done))
        np.testing.assert_allclose(schedule(step), expected, atol=1e-7)
    assert schedule(150) == 0


def test_schedule_falls_to_a_tenth_at_each_decay():
    schedule = create_schedule(0.4, 10, 100, (30, 60), kind='step')
    expected = {0: 0, 5: 0.2, 10: 0.4, 29: 0.4, 30: 0.04, 59: 0.04, 60: 0.004, 99: 0.004}
    for step, rate in expected.items():
        assert float(schedule(step)) == pytest.approx(rate), step
    with pytest.raises(UserError, match='decays at step 5, within a warm-up of 10'):
        create_schedule(0.4, 10, 100, (30, 5), kind='step')


@pytest.mark.parametrize('warmup_steps', [0, 10])
@pytest.mark.parametrize(('kind', 'rate_at_half'), [('linear', 0.2), ('constant', 0.4)])
def test_other_schedules_are_lines(kind, rate_at_half, warmup_steps):
    schedule = create_schedule(0.4, warmup_steps, 90 + warmup_steps, kind=kind)
    steps = np.arange(91 + warmup_steps)
    corners = [0, warmup_steps, 45 + warmup_steps, 90 + warmup_steps]
    rates = [0.4 if warmup_steps == 0 else 0, 0.4, rate_at_half, 2 * rate_at_half - 0.4]
    expected = np.interp(steps, corners, rates)
    np.testing.assert_allclose([float(schedule(step)) for step in steps], expected, atol=1e-7)


@pytest.mark.parametrize('warmup_steps', [20, 21])
def test_warmup_that_does_not_fit_is_an_error(warmup_steps):
    with pytest.raises(UserError, match=f'warm-up of {warmup_steps} steps .* 20 steps'):
        create_schedule(0.1, warmup_steps, 20)


def _config(**values):
    config = default_config().train
    config.update(clip_norm=0.0, **values)
    return config


def _tree(seed):
    """A kernel of each kind of layer, and parameters that are not kernels."""
    rng = np.random.default_rng(seed)
    shapes = {
        'embedding': {'kernel': (2, 2, 3), 'bias': (3,)},
        'norm': {'scale': (3,), 'bias': (3,)},
        'cls_SpatialTransformer': (1, 1, 3),
        'posembed_input': {'pos_embedding': (1, 4, 3)},
    }
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32),
        shapes,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def _run(config, rates, grads, params):
    """Parameters after one update with each of the gradients."""
    optimizer = create_optimizer(config, lambda count: jnp.asarray(rates)[count])
    state = optimizer.init(params)
    for grad in grads:
        updates, state = optimizer.update(grad, state, params)
        params = optax.apply_updates(params, updates)
    return params


def _decay(path, weight_decay):
    return weight_decay if path[-1].key == 'kernel' else 0.0


def _assert_trees_close(tree, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), tree, expected
    )


def test_sgd_equals_formula_over_two_steps():
    config = _config(optimizer='sgd', momentum=0.8, weight_decay=0.3)
    params, first, second = _tree(0), _tree(1), _tree(2)
    result = _run(config, [0.1, 0.05], [first, second], params)

    def expected(path, w, g1, g2):
        decay = _decay(path, 0.3)
        velocity = g1 + decay * w
        w = w - 0.1 * velocity
        velocity = 0.8 * velocity + g2 + decay * w
        return w - 0.05 * velocity

    _assert_trees_close(result, jax.tree_util.tree_map_with_path(expected, params, first, second))


def test_adamw_equals_formula_over_two_steps():
    config = _config(optimizer='adamw', momentum=0.7, adam_b2=0.95, weight_decay=0.3)
    params, first, second = _tree(0), _tree(1), _tree(2)
    result = _run(config, [0.1, 0.05], [first, second], params)

    def expected(path, w, *grads):
        m, v = 0, 0
        for step, (rate, g) in enumerate(zip([0.1, 0.05], grads, strict=True), start=1):
            m, v = 0.7 * m + 0.3 * g, 0.95 * v + 0.05 * g**2
            direction = m / (1 - 0.7**step) / (np.sqrt(v / (1 - 0.95**step)) + 1e-8)
            w = w - rate * (direction + _decay(path, 0.3) * w)
        return w

    _assert_trees_close(result, jax.tree_util.tree_map_with_path(expected, params, first, second))


def test_lion_equals_formula_over_two_steps():
    keywords = {'b1': 0.8, 'b2': 0.95}
    config = _config(optimizer='lion', optimizer_keywords=keywords, weight_decay=0.3)
    params, first, second = _tree(0), _tree(1), _tree(2)
    result = _run(config, [0.1, 0.05], [first, second], params)

    def expected(path, w, *grads):
        m = 0
        for rate, g in zip([0.1, 0.05], grads, strict=True):
            w = w - rate * (np.sign(0.8 * m + 0.2 * g) + _decay(path, 0.3) * w)
            m = 0.95 * m + 0.05 * g
        return w

    _assert_trees_close(result, jax.tree_util.tree_map_with_path(expected, params, first, second))


def test_keywords_beside_the_keys_of_sgd():
    config = _config(optimizer='sgd', momentum=0.8, optimizer_keywords={'nesterov': True})
    params, grads = _tree(0), _tree(1)
    result = _run(config, [0.1], [grads], params)
    _assert_trees_close(result, jax.tree.map(lambda w, g: w - 0.1 * (1 + 0.8) * g, params, grads))


def test_muon_turns_hidden_matrices_orthogonal_and_leaves_the_rest_to_adam():
    shapes = {
        'query': {'kernel': (8, 2, 3), 'bias': (2, 3)},
        'out': {'kernel': (2, 3, 8)},
        'Dense_0': {'kernel': (8, 16)},
        'embedding': {'kernel': (2, 4, 4, 3, 8)},
        'output_projection': {'kernel': (8, 5)},
    }
    is_shape = {'is_leaf': lambda x: isinstance(x, tuple)}
    rng = np.random.default_rng(0)
    drawn = [
        jax.tree.map(lambda s: rng.normal(size=s).astype(np.float32), shapes, **is_shape)
        for _ in range(2)
    ]
    params, grads = drawn
    config = _config(optimizer='muon', weight_decay=0.5)
    after = _run(config, [0.1], [grads], params)
    moved = jax.tree.map(lambda a, b: (a - b) / 0.1, after, params)

    rows = {('query', 'kernel'): 8, ('out', 'kernel'): 6, ('Dense_0', 'kernel'): 8}
    for (layer, name), size in rows.items():
        change, gradient = (t[layer][name].reshape(size, -1) for t in (moved, grads))
        change = -(change + 0.5 * params[layer][name].reshape(size, -1))  # without weight decay
        scale = max(1, change.shape[1] / change.shape[0]) ** 0.5
        singular = np.linalg.svd(change, compute_uv=False) / scale
        assert (singular > 0.6).all() and (singular < 1.3).all(), (layer, singular)
        assert np.vdot(change, gradient) > 0
    for layer, name in (
        ('query', 'bias'),
        ('embedding', 'kernel'),
        ('output_projection', 'kernel'),
    ):
        first = 1 + 0.9 * 0.1 / (1 - 0.9**2)  # of Adam with Nesterov's momentum
        expected = -first * np.sign(grads[layer][name])
        np.testing.assert_allclose(moved[layer][name], expected, atol=1e-3)


@pytest.mark.parametrize('optimizer', ['sgd', 'adamw', 'lion', 'adafactor', 'adamaxw'])
def test_weight_decay_touches_only_kernels(optimizer):
    params = _tree(0)
    zeros = jax.tree.map(jnp.zeros_like, params)
    result = _run(_config(optimizer=optimizer, weight_decay=0.5), [0.1], [zeros], params)

    def check(path, before, after):
        np.testing.assert_allclose(after, before * (1 - 0.1 * _decay(path, 0.5)), rtol=1e-6)

    jax.tree_util.tree_map_with_path(check, params, result)


@pytest.mark.parametrize(
    ('clip_norm', 'scale'), [(2.0, 2 / 5), (5.1, 1), (0.0, 1)], ids=['clips', 'passes', 'off']
)
def test_clip_norm_limits_the_whole_gradient(clip_norm, scale):
    config = _config(optimizer='sgd', momentum=0.0)
    config.clip_norm = clip_norm
    params = {'a': {'kernel': jnp.zeros(2)}, 'b': {'bias': jnp.zeros(1)}}
    grads = {'a': {'kernel': jnp.array([3.0, 0.0])}, 'b': {'bias': jnp.array([4.0])}}  # norm 5
    result = _run(config, [1.0], [grads], params)
    np.testing.assert_allclose(result['a']['kernel'], [-3 * scale, 0], rtol=1e-6)
    np.testing.assert_allclose(result['b']['bias'], [-4 * scale], rtol=1e-6)


def test_clip_norm_leaves_weight_decay_whole():
    config = _config(optimizer='sgd', momentum=0.0, weight_decay=0.5)
    config.clip_norm = 1e-6
    params = {'kernel': jnp.full(3, 100.0)}
    result = _run(config, [0.1], [{'kernel': jnp.ones(3)}], params)
    np.testing.assert_allclose(result['kernel'], 95, rtol=1e-6)


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'optimizer': 'lamd'}, r"'lamd' is no optimizer of optax .* did you mean 'lamb'"),
        ({'optimizer': 'scale_by_adam'}, 'is no optimizer'),
        ({'optimizer': 'schedule_free_adamw'}, 'is no optimizer'),
        ({'optimizer': 'lion', 'optimizer_keywords': {'beta': 1}}, "b1, b2, mu_dtype, and no 'be"),
        ({'optimizer': 'adamw', 'optimizer_keywords': {'b1': 1}}, "no 'b1'; .*train.momentum"),
        ({'optimizer': 'lion', 'optimizer_keywords': {'weight_decay': 1}}, 'train.weight_decay'),
        ({'optimizer': 'lion', 'optimizer_keywords': {'b1': 'x'}}, "'lion' with .*'x'.* cannot"),
        ({'optimizer': 'lion', 'optimizer_keywords': 'b1=1'}, "='b1=1' must have the form"),
        ({'optimizer': 'adam', 'weight_decay': 0.1}, r'weight_decay=0\.1: adam has no .*adamaxw'),
        ({'optimizer': 'madgrad', 'weight_decay': 0.1}, 'madgrad has no weight decay that leaves'),
        ({'optimizer': 'lamb', 'adam_b2': 0.9}, r'adam_b2=0\.9 is for sgd and adamw'),
        ({'optimizer': 'lamb', 'moment_dtype': 'bfloat16'}, 'moment_dtype=bfloat16 is for sgd'),
        ({'optimizer': 'lamb', 'moment_dtype': 'int8'}, "'int8' must be 'float32' or"),
        ({'optimizer': 'galore'}, 'empty arrays, which checkpoints cannot hold'),
        ({'optimizer': 'momo'}, "'momo' .* cannot train here: .*'value'"),  # needs the loss
        (
            # Wants the gradients of each clip.
            {
                'optimizer': 'dpsgd',
                'optimizer_keywords': {'l2_norm_clip': 1.0, 'noise_multiplier': 0.1, 'seed': 0},
            },
            'cannot train here: ',
        ),
    ],
)
def test_optimizers_that_cannot_be_used_are_errors(values, message):
    with pytest.raises(UserError, match=message):
        create_optimizer(_config(**values), optax.constant_schedule(0.1))


@pytest.mark.parametrize('optimizer', ['sgd', 'adamw', 'lion', 'lamb', 'adafactor', 'muon'])
def test_frozen_parameters_have_neither_update_nor_state(optimizer):
    params = {'a': {'kernel': jnp.ones((2, 3))}, 'b': {'kernel': jnp.ones((5,))}}
    config = _config(optimizer=optimizer, weight_decay=0.1, freeze=('^a/',))
    transformation = create_optimizer(config, lambda step: 0.1)
    state = transformation.init(params)
    assert not any(x.shape == (2, 3) for x in jax.tree.leaves(state))
    updates, _ = transformation.update(params, state, params)  # gradients that are not zero
    np.testing.assert_array_equal(updates['a']['kernel'], 0)
    assert (np.asarray(updates['b']['kernel']) < 0).all()
