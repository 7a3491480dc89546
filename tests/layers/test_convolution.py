"""Convolutional layers, compared with PyTorch's operations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_jax.layers.convolution import batch_norm, convolution
from vivit_jax.models.convivit.model import CnnBlock, PositionConvolution
from vivit_jax.models.ctn.model import ConvStem, LocalTokens

pytestmark = pytest.mark.usefixtures('exact_matmuls')


@pytest.fixture(scope='module')
def torch():
    return pytest.importorskip('torch', reason='needs PyTorch: the extra torch')


def _random(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _variables(random_params, module, x):
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)
    rng = np.random.default_rng(2)
    statistics = jax.tree.map(
        lambda x: rng.uniform(0.5, 1.5, x.shape).astype(np.float32), shapes.get('batch_stats', {})
    )
    return {'params': random_params(module, x), 'batch_stats': statistics}


class _Torch:
    """PyTorch's operations on arrays [b ... c], with the parameters of the Flax layers."""

    def __init__(self, torch, variables):
        self.torch, self.variables = torch, variables

    def _apply(self, function, x):
        x = self.torch.from_numpy(np.moveaxis(np.asarray(x), -1, 1).copy())
        return np.moveaxis(function(x).numpy(), 1, -1)

    def conv(self, x, params, stride=1, groups=1):
        kernel = np.moveaxis(np.asarray(params['kernel']), (-1, -2), (0, 1)).copy()
        bias = self.torch.from_numpy(np.array(params['bias'])) if 'bias' in params else None
        function = {4: self.torch.nn.functional.conv2d, 5: self.torch.nn.functional.conv3d}[x.ndim]
        padding = [(size - 1) // 2 for size in kernel.shape[2:]]
        weight = self.torch.from_numpy(kernel)
        return self._apply(lambda x: function(x, weight, bias, stride, padding, 1, groups), x)

    def norm(self, x, name, train):
        params = {
            key: self.torch.from_numpy(x) for key, x in self.variables['params'][name].items()
        }
        stats = self.variables['batch_stats'][name]
        mean, var = (self.torch.from_numpy(stats[key].copy()) for key in ('mean', 'var'))
        return self._apply(
            lambda x: self.torch.nn.functional.batch_norm(
                x, mean, var, params['scale'], params['bias'], train, 0.1, 1e-5
            ),
            x,
        )

    def gelu(self, x):
        return self.torch.nn.functional.gelu(self.torch.from_numpy(np.asarray(x))).numpy()


def _apply(module, variables, x, train):
    output, _ = module.apply(variables, x, train=train, mutable=['batch_stats'])
    return output


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize(
    ('channels_in', 'conv5'), [(3, 'depthwise'), (3, 'dense'), (4, 'depthwise')]
)
def test_cnn_block_equals_its_equation(torch, random_params, channels_in, conv5, train):
    clip = _random(2, 3, 6, 7, channels_in)
    block = CnnBlock(4, conv5)
    variables = _variables(random_params, block, clip)
    params, reference = variables['params'], _Torch(torch, variables)
    assert ('shortcut' in params) == (channels_in != 4)

    def dense(x, name):
        return x @ params[name]['kernel'] + params[name].get('bias', 0)

    x = clip + reference.conv(clip, params['position']['conv'], groups=channels_in)
    shortcut = dense(x, 'shortcut') if 'shortcut' in params else x
    y = reference.gelu(dense(reference.norm(x, 'norm_in', train), 'dense_in'))
    y = reference.conv(y, params['conv'], groups=4 if conv5 == 'depthwise' else 1)
    y = dense(reference.gelu(reference.norm(y, 'norm', train)), 'dense_out')
    output = _apply(block, variables, clip, train)
    np.testing.assert_allclose(output, shortcut + y, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize(
    ('kernel_size', 'stride', 'pool_stride', 'has_norm', 'shape'),
    [
        (7, (1, 2, 2), (1, 2, 2), True, (2, 4, 4, 6, 5)),
        (7, (2, 2, 2), (2, 2, 2), True, (2, 1, 4, 6, 5)),
        (5, (1, 4, 4), (), False, (2, 4, 4, 6, 5)),
    ],
)
def test_stem_equals_its_equation(
    torch, random_params, kernel_size, stride, pool_stride, has_norm, shape, train
):
    clip = _random(2, 4, 16, 24, 3)
    stem = ConvStem(5, kernel_size, stride, pool_stride, has_norm)
    variables = _variables(random_params, stem, clip)
    reference = _Torch(torch, variables)
    assert set(variables['params']['conv']) == ({'kernel'} if has_norm else {'kernel', 'bias'})

    expected = reference.conv(clip, variables['params']['conv'], stride=stride)
    if has_norm:
        expected = reference.norm(expected, 'norm', train)
    if pool_stride:
        pool = torch.nn.functional.max_pool3d
        expected = reference._apply(lambda x: pool(x, 3, pool_stride, padding=1), expected)
    output = _apply(stem, variables, clip, train)
    assert output.shape == shape
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('train', [False, True])
@pytest.mark.parametrize(('kernel_size', 'has_norm'), [(3, True), (5, True), (3, False)])
def test_local_tokens_are_maps_of_single_frames(torch, random_params, kernel_size, has_norm, train):
    grid = (3, 4, 5)
    tokens = _random(2, 1 + 60, 6)
    module = LocalTokens(grid, kernel_size, has_norm)
    variables = _variables(random_params, module, tokens)
    reference = _Torch(torch, variables)
    assert set(variables['params']['conv']) == {'kernel'}

    maps = tokens[:, 1:].reshape(2 * 3, 4, 5, 6)
    maps = reference.conv(maps, variables['params']['conv'], groups=6)
    if has_norm:
        maps = reference.norm(maps, 'norm', train)
    expected = np.concatenate([tokens[:, :1], maps.reshape(2, 60, 6)], axis=1)
    output = _apply(module, variables, tokens, train)
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('kernel_size', [3, 5])
def test_identity_kernels_return_the_tokens(kernel_size):
    tokens = _random(2, 1 + 24, 6)
    module = LocalTokens((2, 3, 4), kernel_size, has_norm=False)
    output, _ = module.init_with_output(jax.random.key(0), tokens)
    np.testing.assert_array_equal(output, tokens)


def test_lecun_kernels_are_random_with_the_variance_of_their_taps():
    module = LocalTokens((1, 5, 5), 5, kernel_init='lecun')
    params = module.init(jax.random.key(0), _random(1, 26, 64))['params']
    assert params['conv']['kernel'].shape == (5, 5, 1, 64)
    np.testing.assert_allclose(params['conv']['kernel'].std(), 1 / 5, rtol=0.1)


@pytest.mark.parametrize('size', [8, 9])
@pytest.mark.parametrize(('kernel_size', 'stride'), [(3, 2), (7, 2), (5, 4)])
def test_center_of_an_output_is_its_input_whatever_the_stride(size, kernel_size, stride):
    conv = convolution(1, (kernel_size,), strides=stride, use_bias=False)
    x = np.arange(1, size + 1, dtype=np.float32)[:, None]
    kernel = np.zeros((kernel_size, 1, 1), np.float32)
    kernel[kernel_size // 2] = 1
    output = conv.apply({'params': {'kernel': kernel}}, x[None])
    np.testing.assert_array_equal(output[0], x[::stride])


def test_depthwise_channels_do_not_mix(random_params):
    conv = convolution(4, (3, 3), depthwise=True)
    x = _random(1, 5, 6, 4)
    params = random_params(conv, x)
    changed = conv.apply({'params': params}, x + np.float32([0, 0, 1, 0]))
    difference = np.abs(changed - conv.apply({'params': params}, x)).max((0, 1, 2))
    np.testing.assert_array_equal(difference > 1e-3, [False, False, True, False])


def test_position_convolution_tells_borders():
    x = np.ones((1, 3, 4, 5, 2), np.float32)
    params = {'conv': {'kernel': np.ones((3, 3, 3, 1, 2)), 'bias': np.float32([0, 10])}}
    output = PositionConvolution().apply({'params': params}, x)[0]
    assert output[1, 1, 1].tolist() == [28, 38]  # all 27 neighbors, and the input itself
    assert output[0, 0, 0].tolist() == [9, 19]
    assert output[1, 0, 1].tolist() == [19, 29]


def test_batch_norm_moves_its_statistics_by_a_tenth():
    x = _random(4, 3, 5)
    norm = batch_norm(train=True)
    variables = norm.init(jax.random.key(0), x)
    _, changed = norm.apply(variables, x, mutable=['batch_stats'])
    statistics = changed['batch_stats']
    np.testing.assert_allclose(statistics['mean'], 0.1 * x.mean((0, 1)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(statistics['var'], 0.9 + 0.1 * x.var((0, 1)), rtol=1e-4)


def test_batch_norm_of_16_bits_keeps_statistics_of_32():
    x = jnp.asarray(_random(4096, 2) + 8, jnp.bfloat16)
    norm = batch_norm(train=True, dtype=jnp.bfloat16)
    variables = norm.init(jax.random.key(0), x)
    output, changed = norm.apply(variables, x, mutable=['batch_stats'])
    assert output.dtype == jnp.bfloat16
    assert changed['batch_stats']['mean'].dtype == jnp.float32
    exact = np.asarray(x, np.float64)
    np.testing.assert_allclose(changed['batch_stats']['mean'], 0.1 * exact.mean(0), rtol=1e-4)
    np.testing.assert_allclose(changed['batch_stats']['var'], 0.9 + 0.1 * exact.var(0), rtol=1e-3)
