import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vivit_jax.augment.policy import Augmentation
from vivit_jax.config.schema import default_config
from vivit_jax.evaluation.forward import create_forward
from vivit_jax.layers.specification import Specification
from vivit_jax.layers.tokens import ModelOutput
from vivit_jax.models.registry import create_model
from vivit_jax.models.variables import init_variables
from vivit_jax.train.freezing import Hold
from vivit_jax.train.optimizer import create_optimizer
from vivit_jax.train.state import TrainState, init_state, start_state
from vivit_jax.train.step import create_train_step
from vivit_jax.video.preprocessing import Preprocessing

SPEC = Preprocessing(num_frames=4, short_side=8, crop_size=8, value_range=(-2.0, 2.0))
NO_CHANGE = Augmentation()


@pytest.fixture(autouse=True)
def exact_matmuls():
    """Accelerators multiply float32 coarsely by default."""
    with jax.default_matmul_precision('highest'):
        yield


class _Model(nn.Module):
    """The attributes of a model that a step uses, besides its call."""

    num_classes: int | dict = 4

    @property
    def spec(self):
        return Specification(num_classes=self.num_classes)


class _Classifier(_Model):
    """A classifier that compiles quickly, and whose logits depend on the place of every pixel."""

    dropout_rate: float = 0.0

    @nn.compact
    def __call__(self, clip, train=False):
        pixels = nn.Dropout(self.dropout_rate, deterministic=not train)(clip)
        features = nn.tanh(nn.Dense(8)(pixels.reshape(len(clip), -1)))
        return ModelOutput(nn.Dense(4)(features), features)


class _Normalizing(_Model):
    @nn.compact
    def __call__(self, clip, train=False):
        pixels = nn.BatchNorm(use_running_average=not train, momentum=0.5)(clip)
        features = nn.tanh(nn.Dense(8)(pixels.reshape(len(clip), -1)))
        return ModelOutput(nn.Dense(4, name='Dense_1')(features), features)


class _TwoHeads(_Model):
    @nn.compact
    def __call__(self, clip, train=False):
        features = nn.tanh(nn.Dense(8)(clip.reshape(len(clip), -1)))
        logits = {head: nn.Dense(n, name=head)(features) for head, n in self.num_classes.items()}
        return ModelOutput(logits, features)


def _schedule(step):
    return 0.1 / (1 + step)


def _batch(size=6):
    rng = np.random.default_rng(0)
    rgb = rng.integers(0, 256, (size, 4, 8, 8, 3), np.uint8)
    return {'rgb': jnp.asarray(rgb), 'label': jnp.arange(size, dtype=jnp.int32) % 4}


def _normalized(rgb):
    return np.asarray(rgb, np.float32) / 255 * 4 - 2


def _params(model):
    """Random parameters: with the zero classifier of a new ViViT every loss is log(classes)."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), _normalized(_batch(1)['rgb']))
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda x: jnp.asarray(rng.normal(0, 0.1, x.shape), jnp.float32), shapes['params']
    )


def _step_and_state(
    optimizer,
    policy=NO_CHANGE,
    *,
    label_smoothing=0.0,
    seed=0,
    model=None,
    accumulate=1,
    **losses,
):
    model = model or _Classifier()
    train_step = create_train_step(
        model,
        optimizer,
        _schedule,
        SPEC,
        policy,
        label_smoothing=label_smoothing,
        seed=seed,
        accumulate=accumulate,
        **losses,
    )
    params = _params(model)
    return jax.jit(train_step), TrainState(jnp.int32(0), params, optimizer.init(params))


def _cross_entropy(logits, labels, smoothing):
    targets = (1 - smoothing) * jax.nn.one_hot(labels, 4) + smoothing / 4
    return -(targets * jax.nn.log_softmax(logits)).sum(-1).mean()


def _assert_trees_equal(tree, expected):
    jax.tree.map(np.testing.assert_array_equal, tree, expected)


@pytest.mark.parametrize('smoothing', [0.0, 0.3])
def test_step_equals_separate_computation(smoothing):
    train_step, state = _step_and_state(optax.sgd(_schedule), label_smoothing=smoothing)
    state = state.replace(step=jnp.int32(3))
    batch = _batch()
    new_state, metrics = train_step(state, batch)

    def loss_fn(params):
        logits = _Classifier().apply({'params': params}, _normalized(batch['rgb'])).logits
        return _cross_entropy(logits, batch['label'], smoothing), logits

    (loss, logits), grads = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))(state.params)
    right = np.asarray(logits).argmax(-1) == np.asarray(batch['label'])
    assert 0 < right.sum() < 6
    squares = sum((np.asarray(g, np.float64) ** 2).sum() for g in jax.tree.leaves(grads))
    expected = {'loss': loss, 'acc1': right.mean(), 'lr': 0.1 / 4, 'grad_norm': squares**0.5}
    assert metrics.keys() == expected.keys()
    for name, value in metrics.items():
        assert value.shape == ()
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, err_msg=name)

    # The optimizer counts by itself: this is its first update, with the rate 0.1.
    jax.tree.map(
        lambda new, old, g: np.testing.assert_allclose(new, old - 0.1 * g, rtol=1e-4, atol=1e-6),
        new_state.params,
        state.params,
        grads,
    )
    assert (new_state.step.dtype, int(new_state.step)) == (jnp.int32, 4)


@pytest.mark.parametrize('accumulate', [1, 2])
def test_step_with_any_number_of_labels_and_weights_equals_separate_computation(accumulate):
    weights = np.float32([0.5, 2, 1, 0.1])
    train_step, state = _step_and_state(
        optax.sgd(1.0),
        label_smoothing=0.2,
        accumulate=accumulate,
        focal_gamma=2.0,
        class_weights=weights,
    )
    rows = (np.random.default_rng(3).random((6, 4)) < 0.4).astype(np.float32)
    batch = {**_batch(), 'label': jnp.asarray(rows)}
    new_state, metrics = train_step(state, batch)
    targets = np.where(rows == 1, 0.9, 0.1)

    def loss_fn(params):
        logits = _Classifier().apply({'params': params}, _normalized(batch['rgb'])).logits
        p = 1 / (1 + jnp.exp(-logits))
        yes, no = (1 - p) ** 2 * jnp.log(p), p**2 * jnp.log(1 - p)
        return -((targets * yes + (1 - targets) * no) * weights).sum() / rows.size

    loss, grads = jax.jit(jax.value_and_grad(loss_fn))(state.params)
    assert metrics.keys() == {'loss', 'lr', 'grad_norm'}
    np.testing.assert_allclose(metrics['loss'], loss, rtol=1e-5)
    jax.tree.map(
        lambda new, old, g: np.testing.assert_allclose(new, old - g, rtol=1e-4, atol=1e-6),
        new_state.params,
        state.params,
        grads,
    )


def test_every_head_has_class_weights_of_its_own():
    sizes = {'verb': 4, 'noun': 2}
    weights = {'verb': np.float32([1, 2, 3, 4]), 'noun': np.float32([0.5, 3])}
    train_step, state = _step_and_state(
        optax.sgd(1.0), model=_TwoHeads(sizes), class_weights=weights
    )
    labels = {'verb': np.arange(6, dtype=np.int32) % 4, 'noun': np.arange(6, dtype=np.int32) % 2}
    batch = {**_batch(), 'label': jax.tree.map(jnp.asarray, labels)}
    metrics = train_step(state, batch)[1]
    output = _TwoHeads(sizes).apply({'params': state.params}, _normalized(batch['rgb']))
    for head, label in labels.items():
        losses = optax.softmax_cross_entropy_with_integer_labels(output.logits[head], label)
        expected = np.mean(weights[head][label] * losses)
        np.testing.assert_allclose(metrics[f'{head}/loss'], expected, rtol=1e-5)


@pytest.mark.parametrize('parts', [2, 3, 6])
def test_parts_of_a_batch_have_the_gradients_of_the_whole_batch(parts):
    policy = Augmentation(flip=0.5, mixup_alpha=0.5)  # clips of all parts are mixed
    results = []
    for accumulate in (1, parts):
        train_step, state = _step_and_state(optax.sgd(1.0), policy, accumulate=accumulate)
        results.append(train_step(state, _batch()))
    (expected, expected_metrics), (found, metrics) = results
    assert metrics.keys() == expected_metrics.keys()
    for name, value in metrics.items():
        np.testing.assert_allclose(value, expected_metrics[name], rtol=1e-6, err_msg=name)
    jax.tree.map(
        lambda x, y, start: np.testing.assert_allclose(
            x - start, y - start, rtol=1e-6, atol=1e-6 * np.abs(y - start).max()
        ),
        found.params,
        expected.params,
        state.params,
    )


def test_running_statistics_follow_the_parts_of_a_batch():
    model = _Normalizing()
    step = create_train_step(
        model, optax.sgd(1.0), _schedule, SPEC, NO_CHANGE, label_smoothing=0, seed=0, accumulate=2
    )
    batch = _batch()
    variables = init_variables(jax.random.key(0), model, SPEC.clip_shape)
    state = jax.jit(step)(start_state(variables, optax.sgd(1.0)), batch)[0]
    mean = 0
    for part in range(2):  # clip i is in part i mod 2; the momentum of the statistics is 0.5
        clips = _normalized(batch['rgb'][part::2])
        mean = 0.5 * mean + 0.5 * clips.mean((0, 1, 2, 3))
    np.testing.assert_allclose(state.batch_stats['BatchNorm_0']['mean'], mean, atol=1e-6)


def test_step_of_two_heads_takes_the_mean_of_their_losses():
    sizes = {'verb': 2, 'noun': 3}
    model = _TwoHeads(sizes)
    train_step, state = _step_and_state(optax.sgd(1.0), label_smoothing=0.3, model=model)
    labels = {'verb': jnp.array([1, 1, 0, 1, 0, 1]), 'noun': jnp.array([0, 0, 2, 2, 2, 1])}
    rgb = _batch()['rgb']
    new_state, metrics = train_step(state, {'rgb': rgb, 'label': labels})

    def loss_fn(params):
        logits = model.apply({'params': params}, _normalized(rgb)).logits
        losses = {}
        for head, n in sizes.items():
            targets = 0.7 * jax.nn.one_hot(labels[head], n) + 0.3 / n
            losses[head] = -(targets * jax.nn.log_softmax(logits[head])).sum(-1).mean()
        return (losses['verb'] + losses['noun']) / 2, (losses, logits)

    (loss, (losses, logits)), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
    right = {head: np.asarray(logits[head].argmax(-1) == labels[head]) for head in sizes}
    both = right['verb'] & right['noun']
    # The three accuracies differ, so none can stand for another.
    assert len({right['verb'].sum(), right['noun'].sum(), both.sum()}) == 3
    expected = {
        'loss': loss,
        'acc1': both.mean(),
        'verb/loss': losses['verb'],
        'noun/loss': losses['noun'],
        'verb/acc1': right['verb'].mean(),
        'noun/acc1': right['noun'].mean(),
        'lr': 0.1,
        'grad_norm': metrics['grad_norm'],
    }
    assert metrics.keys() == expected.keys()
    for name, value in metrics.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, err_msg=name)
    jax.tree.map(
        lambda new, old, g: np.testing.assert_allclose(new, old - g, rtol=1e-3, atol=1e-5),
        new_state.params,
        state.params,
        grads,
    )


def test_forward_keeps_the_leading_axes_of_every_head():
    model = _TwoHeads({'verb': 2, 'noun': 3})
    rgb = _batch(6)['rgb']
    variables = {'params': _params(model)}
    output = create_forward(model, SPEC)(variables, rgb.reshape(2, 3, *rgb.shape[1:]))
    expected = model.apply(variables, _normalized(rgb)).logits
    for head, size in (('verb', 2), ('noun', 3)):
        assert output.logits[head].shape == (2, 3, size)
        found = output.logits[head].reshape(6, size)
        np.testing.assert_allclose(found, expected[head], rtol=1e-4, atol=1e-5)


def test_grad_norm_is_that_before_clipping():
    config = default_config().train
    config.update(momentum=0.0, clip_norm=1e-3)
    train_step, state = _step_and_state(create_optimizer(config, optax.constant_schedule(1.0)))
    new_state, metrics = train_step(state, _batch())
    update = jax.tree.map(jnp.subtract, state.params, new_state.params)
    np.testing.assert_allclose(optax.tree.norm(update), 1e-3, rtol=1e-3)
    assert metrics['grad_norm'] > 0.01


@pytest.mark.slow
def test_loss_falls_on_one_batch():
    model = create_model(
        'vivit_fe',
        num_classes=4,
        hidden_size=8,
        num_layers=1,
        num_heads=2,
        mlp_dim=16,
        tubelet_size=(2, 4, 4),
        temporal_num_layers=1,
    )
    optimizer = optax.sgd(0.1, momentum=0.9)
    train_step, _ = _step_and_state(optimizer, model=model)
    key = jax.random.key(0, impl='rbg')  # compiles faster
    state = jax.jit(lambda: init_state(key, model, optimizer, SPEC))()
    losses = []
    for _ in range(15):
        state, metrics = train_step(state, _batch())
        losses.append(float(metrics['loss']))
    np.testing.assert_allclose(losses[0], np.log(4), rtol=1e-5)
    assert losses[-1] < 0.5 * losses[0]
    assert int(state.step) == 15


def test_frozen_parameters_stay_and_count_for_no_gradient():
    config = default_config().train
    config.update(optimizer='sgd', weight_decay=0.1, clip_norm=0.0, freeze=('^Dense_0/',))
    schedule, model = optax.constant_schedule(0.1), _Classifier()
    optimizer = create_optimizer(config, schedule)
    train_step = jax.jit(
        create_train_step(
            model, optimizer, schedule, SPEC, NO_CHANGE, label_smoothing=0.0, seed=0,
            freeze=config.freeze,
        )
    )  # fmt: skip
    params = _params(model)
    state = TrainState(jnp.int32(0), params, optimizer.init(params))
    new_state, metrics = train_step(state, _batch())
    _assert_trees_equal(new_state.params['Dense_0'], params['Dense_0'])
    assert np.any(new_state.params['Dense_1']['kernel'] != params['Dense_1']['kernel'])

    clip, labels = _normalized(_batch()['rgb']), _batch()['label']

    def loss(head):
        logits = model.apply({'params': {**params, 'Dense_1': head}}, clip).logits
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    expected = optax.tree.norm(jax.grad(loss)(params['Dense_1']))
    np.testing.assert_allclose(metrics['grad_norm'], expected, rtol=1e-5)


def test_held_parameters_are_frozen_at_first_and_then_trained():
    config = default_config().train
    config.update(optimizer='sgd', momentum=0.0, clip_norm=0.0)
    schedule, model = optax.constant_schedule(0.1), _Classifier()
    hold = Hold(('^Dense_0/',), steps=2, rise=1)

    def train_step(hold, freeze):
        optimizer = create_optimizer(config, schedule, hold=hold)
        step = create_train_step(
            model, optimizer, schedule, SPEC, NO_CHANGE, label_smoothing=0.0, seed=0, hold=hold,
            freeze=freeze,
        )  # fmt: skip
        params = _params(model)
        return jax.jit(step), TrainState(jnp.int32(0), params, optimizer.init(params))

    step, state = train_step(hold, ())
    frozen_step, frozen = train_step(Hold(), hold.patterns)
    for _ in range(2):
        state, metrics = step(state, _batch())
        frozen, expected = frozen_step(frozen, _batch())
        _assert_trees_equal(state.params, frozen.params)
        _assert_trees_equal(metrics, expected)
    # At step 2 their updates are still 0, but gradients are computed; at step 3 they are whole.
    plain_step, _ = train_step(Hold(), ())
    state, metrics = step(state, _batch())
    _assert_trees_equal(state.params['Dense_0'], frozen.params['Dense_0'])
    assert metrics['grad_norm'] > frozen_step(frozen, _batch())[1]['grad_norm']
    plain = TrainState(jnp.int32(3), state.params, train_step(Hold(), ())[1].opt_state)
    for key in ('Dense_0', 'Dense_1'):
        found, expected = step(state, _batch())[0].params, plain_step(plain, _batch())[0].params
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b), found[key], expected[key])


@pytest.mark.parametrize('model', [_Classifier(), _Normalizing()], ids=['', 'with statistics'])
def test_averages_follow_parameters_and_statistics(model):
    decay, optimizer = 0.3, optax.sgd(0.1)
    train_step = jax.jit(
        create_train_step(
            model, optimizer, _schedule, SPEC, NO_CHANGE, label_smoothing=0.0, seed=0,
            ema_decay=decay,
        )
    )  # fmt: skip
    variables = init_variables(jax.random.key(0), model, SPEC.clip_shape)
    state = start_state({**variables, 'params': _params(model)}, optimizer, has_ema=True)
    averages = jax.tree.map(np.asarray, state.ema)
    for step in range(6):
        state, _ = train_step(state, _batch())
        used, now = min(decay, (1 + step) / (10 + step)), _variables(state)
        averages = jax.tree.map(lambda x, y, u=used: u * x + (1 - u) * y, averages, now)
        _assert_trees_close(state.ema, averages)
    assert state.eval_variables is state.ema
    differences = jax.tree.map(lambda x, y: np.abs(x - y).max(), averages, now)
    assert min(jax.tree.leaves(differences)) > 1e-6
    assert set(differences['batch_stats']) == {'BatchNorm_0'} & {*variables['batch_stats']}


def _variables(state):
    return {'params': state.params, 'batch_stats': state.batch_stats}


def _assert_trees_close(found, expected):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, 1e-5, 1e-7), found, expected)


def test_randomness_follows_from_seed_and_step():
    policy = Augmentation(flip=0.5, color_jitter=0.8, color_drop=0.1)
    train_step, state = _step_and_state(
        optax.sgd(0.1, momentum=0.9), policy, model=_Classifier(dropout_rate=0.3)
    )
    batch = _batch()
    first, metrics = train_step(state, batch)
    again, metrics_again = train_step(state, batch)
    _assert_trees_equal((first, metrics), (again, metrics_again))

    later = train_step(state.replace(step=jnp.int32(1)), batch)[1]
    assert abs(later['loss'] - metrics['loss']) > 1e-4


@pytest.mark.parametrize(
    ('policy', 'dropout_rate', 'is_random'),
    [
        (NO_CHANGE, 0.0, False),
        (NO_CHANGE, 0.3, True),
        (Augmentation(flip=0.5), 0.0, True),
    ],
    ids=['nothing', 'dropout', 'augmentation'],
)
def test_seed_and_step_change_what_is_random(policy, dropout_rate, is_random):
    losses, model = [], _Classifier(dropout_rate=dropout_rate)
    for seed, steps in ((0, (0, 1)), (1, (0,))):
        train_step, state = _step_and_state(optax.sgd(0.1), policy, seed=seed, model=model)
        for step in steps:
            metrics = train_step(state.replace(step=jnp.int32(step)), _batch())[1]
            losses.append(float(metrics['loss']))
    assert len(set(losses)) == (3 if is_random else 1)


def test_mirrored_clips_are_trained_and_measured_with_the_other_label():
    optimizer, batch = optax.sgd(0.1), _batch()
    swap = np.array([1, 0, 2, 3], np.int32)
    mirroring, state = (
        create_train_step(
            _Classifier(), optimizer, _schedule, SPEC, Augmentation(flip=1.0),
            label_smoothing=0.1, seed=0, mirrored=swap,
        ),
        TrainState(jnp.int32(0), _params(_Classifier()), optimizer.init(_params(_Classifier()))),
    )  # fmt: skip
    plain, _ = _step_and_state(optimizer, label_smoothing=0.1)
    new_state, metrics = jax.jit(mirroring)(state, batch)
    other = {'rgb': batch['rgb'][:, :, :, ::-1], 'label': jnp.array(swap)[batch['label']]}
    expected_state, expected = plain(state, other)
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6),
        new_state.params,
        expected_state.params,
    )
    unswapped = plain(state, {**other, 'label': batch['label']})[1]['loss']
    assert abs(unswapped - expected['loss']) > 1e-3


def test_new_state_is_ready_for_the_first_step():
    optimizer = optax.adam(0.1)
    state = jax.jit(lambda: init_state(jax.random.key(0), _Classifier(), optimizer, SPEC))()
    assert (state.step.dtype, int(state.step)) == (jnp.int32, 0)
    assert {x.dtype for x in jax.tree.leaves(state.params)} == {np.dtype('float32')}
    shapes, expected = (jax.tree.map(jnp.shape, p) for p in (state.params, _params(_Classifier())))
    assert shapes == expected
    _assert_trees_equal(state.opt_state, optimizer.init(state.params))


@pytest.mark.parametrize('leading', [(), (6,), (2, 3)])
@pytest.mark.parametrize('color_order', ['rgb', 'bgr'])
def test_forward_equals_model_on_normalized_pixels(leading, color_order):
    spec = Preprocessing(
        num_frames=4, short_side=8, crop_size=8, value_range=(-2.0, 2.0), color_order=color_order
    )
    model = _Classifier()
    variables = {'params': _params(model)}
    rgb = _batch(int(np.prod(leading)))['rgb']
    output = jax.jit(create_forward(model, spec))(variables, rgb.reshape(*leading, *rgb.shape[1:]))

    clip = _normalized(rgb)
    if color_order == 'bgr':
        clip = clip[..., [2, 1, 0]]
    expected = jax.jit(model.apply)(variables, clip)
    assert (output.logits.shape, output.features.shape) == ((*leading, 4), (*leading, 8))
    np.testing.assert_allclose(output.logits.reshape(-1, 4), expected.logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        output.features.reshape(-1, 8), expected.features, rtol=1e-4, atol=1e-5
    )
