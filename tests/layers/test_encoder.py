import flax.linen as nn
import jax
import numpy as np
import pytest

from vivit_jax.layers.drop_path import DropPath
from vivit_jax.layers.encoder import Encoder


def _encoder(**kwargs):
    return Encoder(**{'num_layers': 1, 'num_heads': 2, 'mlp_dim': 8, 'grid': (3,), **kwargs})


@pytest.mark.parametrize(
    ('num_layers', 'expected'), [(1, [0]), (2, [0, 0.3]), (4, [0, 0.1, 0.2, 0.3])]
)
def test_encoder_drop_path_rates_rise_linearly(num_layers, expected):
    rates = []

    def watch(next_call, args, kwargs, context):
        if isinstance(context.module, DropPath):
            rates.append(context.module.rate)
        return next_call(*args, **kwargs)

    encoder = _encoder(num_layers=num_layers, drop_path_rate=0.3)
    with nn.intercept_methods(watch):
        jax.eval_shape(encoder.init, jax.random.key(0), np.zeros((1, 3, 4), np.float32))
    np.testing.assert_allclose(rates, np.repeat(expected, 2))  # two branches a block


def test_encoder_without_blocks_normalizes_tokens_plus_positions():
    tokens = np.random.default_rng(0).normal(size=(2, 5, 3, 4)).astype(np.float32)
    encoder = _encoder(num_layers=0)
    params = encoder.init(jax.random.key(0), tokens)['params']
    scale, bias = np.float32([1, 2, 3, 4]), np.float32([0, 0, 1, 1])
    params['encoder_norm'] = {'scale': scale, 'bias': bias}

    x = tokens + np.asarray(params['posembed_input']['pos_embedding'])
    normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    output = encoder.apply({'params': params}, tokens)
    np.testing.assert_allclose(output, normal * scale + bias, rtol=1e-4, atol=1e-5)


def test_encoder_drops_embeddings():
    encoder = _encoder(num_layers=0, position='none', dropout_rate=0.25)
    tokens = np.ones((20, 3, 100), np.float32)
    params = encoder.init(jax.random.key(0), tokens)
    rngs = {'dropout': jax.random.key(1)}
    output = np.asarray(encoder.apply(params, tokens, train=True, rngs=rngs))
    # The norm of ones is zero; of kept and dropped ones, above and below.
    assert abs((output < 0).mean() - 0.25) < 0.03
    assert (output != 0).all()
    np.testing.assert_array_equal(encoder.apply(params, tokens), 0)
