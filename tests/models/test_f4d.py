"""What F4D's and V4D's parts compute, against their equations in NumPy and layers of PyTorch."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_jax.models.f4d.attention import (
    ChannelMap,
    SpatialMap,
    SpatioTemporalMap,
    TemporalMap,
    attend,
    maximum,
)
from vivit_jax.models.f4d.model import Convolution4d, FactorizedBlock
from vivit_jax.models.registry import specify

pytestmark = pytest.mark.usefixtures('exact_matmuls')

RNG = np.random.default_rng(0)
SHAPE = (2, 3, 5, 4, 6, 8)  # b u t h w c


def _activations(shape=SHAPE):
    return RNG.normal(size=shape).astype(np.float32)


def _run(module, x, **keywords):
    """The output for random parameters, which it also returns."""
    params = jax.eval_shape(module.init, jax.random.key(0), x)['params']
    params = jax.tree.map(lambda p: RNG.normal(size=p.shape).astype(np.float32), params)
    return np.asarray(jax.jit(module.apply)({'params': params}, x, **keywords)), params


def _convolve(x, kernel, dilation=1):
    """A convolution of [... c] over as many axes as the kernel [... c d] has, tap by tap."""
    sizes = kernel.shape[:-2]
    first = x.ndim - 1 - len(sizes)
    around = [(0, 0)] * first + [2 * (size // 2 * dilation,) for size in sizes] + [(0, 0)]
    padded, result = np.pad(x, around), 0
    for tap in itertools.product(*map(range, sizes)):
        window = tuple(
            slice(dilation * i, dilation * i + n)
            for i, n in zip(tap, x.shape[first:-1], strict=True)
        )
        result = result + padded[(slice(None),) * first + window] @ kernel[tap]
    return result


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize('kernel_size', [(3, 3, 1, 1), (3, 1, 1, 1), (1, 3, 1, 1), (3, 1, 3, 5)])
def test_convolution_over_four_axes_is_the_sum_of_its_taps(kernel_size):
    x = _activations()
    found, params = _run(Convolution4d(7, kernel_size), x)
    expected = _convolve(x, params['kernel'])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_four_axes_are_shifted_convolutions_over_three():
    # The definition in V4D: a 3-D convolution of each unit, for each unit that a unit sees.
    x = _activations()
    found, params = _run(Convolution4d(7, (3, 3, 3, 1)), x)
    padded = np.pad(x, ((0, 0), (1, 1), *4 * [(0, 0)]))
    expected = sum(_convolve(padded[:, i : i + 3], params['kernel'][i]) for i in range(3))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_block_is_its_layers_in_pytorch():
    torch = pytest.importorskip('torch', reason='needs PyTorch: the extra torch')
    spec = specify('f4d', attention=(), block_dropout_rate=0.0)
    x = _activations()
    block = FactorizedBlock(spec)
    variables = jax.tree.map(
        lambda a: RNG.uniform(0.5, 1.5, a.shape).astype(np.float32),
        jax.eval_shape(block.init, jax.random.key(0), x),
    )
    assert variables['params']['unit_conv']['kernel'].shape == (3, 1, 1, 1, 8, 12)  # 1.5 times
    found = jax.jit(block.apply)(variables, x)
    z = torch.tensor(x)
    # From [b u t h w c] to (B·T) x C x U x H x W and to (B·U) x C x T x H x W, and back.
    orders = {'unit': (0, 2, 5, 1, 3, 4), 'time': (0, 1, 5, 2, 3, 4)}
    for name, order in orders.items():
        params, statistics = variables['params'], variables['batch_stats'][f'{name}_norm']
        kernel = params[f'{name}_conv']['kernel'].reshape(3, *z.shape[-1:], -1)
        conv = torch.nn.Conv3d(*kernel.shape[1:], (3, 1, 1), padding=(1, 0, 0), bias=False)
        norm = torch.nn.BatchNorm3d(kernel.shape[-1]).eval()
        values = {'weight': params[f'{name}_norm']['scale'], 'bias': params[f'{name}_norm']['bias']}
        values |= {'running_mean': statistics['mean'], 'running_var': statistics['var']}
        values |= {'num_batches_tracked': 0}
        norm.load_state_dict({key: torch.tensor(value) for key, value in values.items()})
        z = z.permute(order)
        with torch.no_grad():
            conv.weight.copy_(torch.tensor(kernel.transpose(2, 1, 0))[..., None, None])
            z = norm(conv(z.flatten(0, 1))).relu().unflatten(0, z.shape[:2])
        z = z.permute(np.argsort(order).tolist())
    np.testing.assert_allclose(found, x + z.numpy(), rtol=1e-4, atol=1e-4)


def test_temporal_map_sees_the_frames_of_all_units():
    x = _activations()
    found, params = _run(TemporalMap(), x)
    frames = (x.mean(axis=(3, 4, 5)) + x.max(axis=(3, 4, 5))).reshape(2, 15, 1)
    logits = sum(
        _convolve(frames, params[f'conv{rate}']['kernel'], rate) + params[f'conv{rate}']['bias']
        for rate in (2, 3)
    )
    expected = _sigmoid(logits).reshape(2, 3, 5, 1, 1, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('has_max', [True, False])
def test_channel_map_is_an_mlp_of_pooled_channels(has_max):
    x = _activations()
    found, params = _run(ChannelMap(reduction=2, has_max=has_max), x)
    pooled = [x.mean(axis=(2, 3, 4)), x.max(axis=(2, 3, 4))]
    logits = sum(
        np.maximum(values @ params['dense_in']['kernel'], 0) @ params['dense_out']['kernel']
        for values in pooled[: 1 + has_max]
    )
    np.testing.assert_allclose(
        found, _sigmoid(logits)[:, :, None, None, None], rtol=1e-4, atol=1e-5
    )


def test_spatio_temporal_map_convolves_space_and_then_time():
    x = _activations()
    found, params = _run(SpatioTemporalMap(), x)
    maps = np.stack([x.mean(axis=-1), x.max(axis=-1)], axis=-1)
    for axis in ('space', 'time'):
        layers = {rate: params[f'{axis}_conv{rate}'] for rate in (2, 3)}
        maps = sum(_convolve(maps, p['kernel'], rate) + p['bias'] for rate, p in layers.items())
        maps = np.maximum(maps, 0) if axis == 'space' else maps
    np.testing.assert_allclose(found, _sigmoid(maps), rtol=1e-4, atol=1e-5)


def test_spatial_map_convolves_each_frame():
    x = _activations()
    found, params = _run(SpatialMap(), x)
    maps = np.stack([x.mean(axis=-1), x.max(axis=-1)], axis=-1)
    expected = _sigmoid(_convolve(maps, params['conv']['kernel']))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('attention', 'gain'), [((), 1), (('ta', 'sta'), 1.5**2), (('cbam',), 0.5**2), (('se',), 0.5)]
)
def test_own_modules_add_their_input_and_others_do_not(attention, gain):
    # All parameters are zero, so that each map is σ(0) = 1/2.
    spec, x = specify('f4d', attention=attention, reduction=2), _activations()

    class Attend(nn.Module):
        @nn.compact
        def __call__(self, x):
            return attend(spec, x)

    params = jax.eval_shape(Attend().init, jax.random.key(0), x).get('params', {})
    zeros = jax.tree.map(lambda p: jnp.zeros(p.shape), params)
    np.testing.assert_allclose(Attend().apply({'params': zeros}, x), gain * x, rtol=1e-5)


def test_spatio_temporal_map_starts_alive(dropout_key):
    # With a dead ReLU before the single channel, nothing before it would learn.
    x = jnp.maximum(_activations(), 0)
    for seed in range(20):
        params = SpatioTemporalMap().init(dropout_key(seed), x)['params']
        hidden = [params[f'space_conv{rate}']['kernel'] for rate in (2, 3)]
        assert all((kernel >= 0).all() and kernel.sum() > 0.3 for kernel in hidden)


@pytest.mark.parametrize(('first', 'last'), [(2, 4), (3, 5), (5, 5)])
def test_gradient_of_the_maximum_goes_to_one_largest_value(first, last):
    x = _activations()
    axes = tuple(range(first, last + 1))
    np.testing.assert_array_equal(maximum(x, first, last), x.max(axis=axes))
    weights = RNG.normal(size=x.max(axis=axes).shape).astype(np.float32)
    gradient = jax.grad(lambda x: (maximum(x, first, last) * weights).sum())(x)
    is_largest = x == x.max(axis=axes, keepdims=True)
    np.testing.assert_array_equal(gradient, is_largest * np.expand_dims(weights, axes))
    ties = jax.grad(lambda x: maximum(x, first, last).sum())(jnp.zeros(SHAPE))
    np.testing.assert_array_equal(ties.sum(axis=axes), np.ones(weights.shape))


@pytest.mark.parametrize('name', ['f4d', 'v4d'])
def test_parameters_do_not_depend_on_units_and_frames(create_tiny, variable_shapes, name):
    model = create_tiny(name)
    shapes = [(1, 4, 16, 16, 3), (1, 2, 4, 16, 16, 3), (1, 5, 3, 24, 16, 3)]
    trees = [variable_shapes(model, jax.ShapeDtypeStruct(s, jnp.float32)) for s in shapes]
    assert trees[0] == trees[1] == trees[2]


@pytest.mark.parametrize('blocks', [(), ('conv2',)])
def test_units_see_each_other_only_through_blocks(
    create_tiny, random_clip, random_variables, blocks
):
    model, clip = create_tiny('v4d', blocks=blocks), random_clip((2, 3, 4, 16, 16, 3))
    variables = random_variables(model, clip)
    apply = jax.jit(model.apply)
    together, apart = apply(variables, clip), [apply(variables, clip[:, u]) for u in range(3)]
    for field in ('features', 'logits'):
        mean = np.mean([getattr(output, field) for output in apart], axis=0)
        is_mean = np.allclose(getattr(together, field), mean, rtol=1e-4, atol=1e-4)
        assert is_mean == (not blocks)


def test_clip_without_an_axis_of_units_is_one_unit(create_tiny, random_clip, random_variables):
    model, clip = create_tiny('v4d'), random_clip()
    variables = random_variables(model, clip)
    apply = jax.jit(model.apply)
    expected = apply(variables, clip[:, None]).logits
    np.testing.assert_allclose(apply(variables, clip).logits, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ('keywords', 'message'),
    [
        ({'blocks': ('conv6',)}, r"'conv6' is no place: .* conv3\.0"),
        ({'blocks': ('conv3.4',)}, r'stages have \(3, 4, 6, 3\) bottlenecks'),
        ({'blocks': ('conv3', 'conv3.3')}, 'names a place twice'),
        ({'block_kernel': (3, 2, 1, 1)}, 'block_kernel=.* four odd numbers'),
        ({'temporal_kernels': (1, 1, 3)}, 'temporal_kernels=.* four odd numbers'),
        ({'stage_blocks': (3, 4, 0, 3)}, 'stage_blocks=.* four numbers from 1'),
        ({'attention': ('ta', 'stm')}, "attention=.*'stm'.* must name modules"),
        ({'attention': ('ta', 'ta')}, 'each once'),
        ({'reduction': 513}, 'reduction=513 must lie between 1 and .*512'),
        ({'width': 0}, 'width=0 must be at least 1'),
        ({'block_dropout_rate': 1.0}, 'block_dropout_rate=1.0 must lie in'),
        ({'size': 'B/16x2'}, "size='B/16x2' must be one of I3D-S, conv1"),
        ({'hidden_size': 64}, "no keyword 'hidden_size'"),
    ],
    ids=str,
)
def test_impossible_keywords_are_errors(keywords, message):
    with pytest.raises(ValueError, match=message):
        specify('f4d', **keywords)


def test_other_models_take_no_units(create_tiny):
    clip = jax.ShapeDtypeStruct((1, 2, 4, 16, 16, 3), jnp.float32)
    with pytest.raises(ValueError, match=r'\[1, 2, 4, 16, 16, 3\]; .* models of several units'):
        jax.eval_shape(create_tiny('vivit_joint').init, jax.random.key(0), clip)


@pytest.mark.parametrize('name', ['f4d', 'v4d'])
def test_twin_in_pytorch_takes_any_number_of_units(create_tiny, random_variables, name):
    torch = pytest.importorskip('torch', reason='needs PyTorch: the extra torch')
    from vivit_jax.models.registry import find_implementation
    from vivit_jax.weights.torch_export import rules_of
    from vivit_jax.weights.torch_layout import to_torch

    model = create_tiny(name)
    twin = find_implementation(model.spec, 'torch')(model.spec, (8, 16, 16)).eval()
    for units in (1, 3):
        clip = _activations((2, units, 4, 16, 16, 3))
        variables = random_variables(model, clip)
        arrays = to_torch(variables['params'], rules_of(model.spec), variables['batch_stats'])
        twin.load_state_dict({k: torch.tensor(np.array(x)) for k, x in arrays.items()})
        expected = jax.jit(model.apply)(variables, clip).logits
        with torch.no_grad():
            found = twin(torch.tensor(clip)).logits.numpy()
        assert np.linalg.norm(found - expected) <= 1e-5 * np.linalg.norm(expected)
    with pytest.raises(ValueError, match=r'\(1, 4, 4, 16, 12, 3\).*\(8, 16, 16, 3\)'):
        twin(torch.zeros(1, 4, 4, 16, 12, 3))
