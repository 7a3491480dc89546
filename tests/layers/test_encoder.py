import flax.linen as nn
import jax
import numpy as np
import pytest

from vivit_jax.layers.specification import TransformerSpecification
from vivit_jax.layers.transformer import Encoder, EncoderBlock

pytestmark = pytest.mark.usefixtures('exact_matmuls')


class _RateBlock(nn.Module):
    """Captures its rate of stochastic depth in place of attention weights."""

    spec: TransformerSpecification

    @nn.compact
    def __call__(self, tokens, drop_path_rate, train, capture_attention):
        scale = self.param('scale', nn.initializers.ones, ())
        return tokens * scale, {'rate': drop_path_rate} if capture_attention else {}


def _spec(**keywords):
    return TransformerSpecification(**{'hidden_size': 4, 'num_heads': 2, 'mlp_dim': 8, **keywords})


def _encoder(block=EncoderBlock, position='learned', norms=(False, True), **keywords):
    return Encoder(
        _spec(**{'num_layers': 1, **keywords}),
        (3,),
        position,
        block=block,
        has_pre_norm=norms[0],
        has_final_norm=norms[1],
    )


@pytest.mark.parametrize('scan_layers', [False, True])
@pytest.mark.parametrize(
    ('num_layers', 'expected'), [(1, [0]), (2, [0, 0.3]), (4, [0, 0.1, 0.2, 0.3])]
)
def test_encoder_drop_path_rates_rise_linearly(num_layers, expected, scan_layers):
    encoder = _encoder(
        block=_RateBlock, num_layers=num_layers, drop_path_rate=0.3, scan_layers=scan_layers
    )
    tokens = np.zeros((1, 3, 4), np.float32)
    variables = encoder.init(jax.random.key(0), tokens)
    _, captured = encoder.apply(variables, tokens, train=True, capture_attention=True)
    rates = [captured[f'encoderblock_{layer}']['rate'] for layer in range(num_layers)]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


@pytest.mark.parametrize('layer_norm_eps', [1e-6, 0.5])
def test_encoder_without_blocks_normalizes_tokens_plus_positions(layer_norm_eps):
    tokens = np.random.default_rng(0).normal(size=(2, 5, 3, 4)).astype(np.float32)
    encoder = _encoder(num_layers=0, layer_norm_eps=layer_norm_eps)
    params = encoder.init(jax.random.key(0), tokens)['params']
    scale, bias = np.float32([1, 2, 3, 4]), np.float32([0, 0, 1, 1])
    params['encoder_norm'] = {'scale': scale, 'bias': bias}

    x = tokens + np.asarray(params['posembed_input']['pos_embedding'])
    deviation = np.sqrt(x.var(-1, keepdims=True) + layer_norm_eps)
    normal = (x - x.mean(-1, keepdims=True)) / deviation
    output, captured = encoder.apply({'params': params}, tokens)
    np.testing.assert_allclose(output, normal * scale + bias, rtol=1e-4, atol=1e-5)
    assert captured == {}


def test_norm_before_the_blocks(random_params):
    encoder = _encoder(norms=(True, False))
    tokens = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    params = random_params(encoder, tokens)
    x = tokens + params['posembed_input']['pos_embedding']
    x = nn.LayerNorm().apply({'params': params['pre_norm']}, x)
    expected, _ = EncoderBlock(_spec()).apply({'params': params['encoderblock_0']}, x)
    output, _ = encoder.apply({'params': params}, tokens)
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)


def test_encoder_without_final_norm_ends_with_its_blocks():
    encoder = _encoder(num_layers=0, position='none', norms=(False, False))
    tokens = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    (output, _), variables = encoder.init_with_output(jax.random.key(0), tokens)
    np.testing.assert_array_equal(output, tokens)
    assert variables == {}


def test_encoder_drops_embeddings():
    encoder = _encoder(num_layers=0, position='none', dropout_rate=0.25)
    tokens = np.ones((20, 3, 100), np.float32)
    params = encoder.init(jax.random.key(0), tokens)
    rngs = {'dropout': jax.random.key(1)}
    output = np.asarray(encoder.apply(params, tokens, train=True, rngs=rngs)[0])
    # The norm of all ones is zero; after dropout it is above zero for kept, below for dropped ones.
    assert abs((output < 0).mean() - 0.25) < 0.03
    assert (output != 0).all()
    np.testing.assert_array_equal(encoder.apply(params, tokens)[0], 0)


@pytest.mark.parametrize('remat', ['none', 'block', 'dots'])
@pytest.mark.parametrize('scan_layers', [False, True])
def test_encoder_applies_its_blocks_in_order(random_params, scan_layers, remat):
    encoder = _encoder(num_layers=3, scan_layers=scan_layers, remat=remat)
    tokens = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    params = random_params(encoder, tokens)
    expected = tokens + params['posembed_input']['pos_embedding']
    for layer in range(3):
        block = {'params': params[f'encoderblock_{layer}']}
        expected, _ = EncoderBlock(_spec()).apply(block, expected)
    expected = nn.LayerNorm().apply({'params': params['encoder_norm']}, expected)
    output, _ = encoder.apply({'params': params}, tokens)
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)


def test_scan_drops_differently_in_every_layer(random_params):
    # With the same parameters in all blocks and no other randomness, one block in two is dropped.
    encoder = _encoder(num_layers=3, position='none', drop_path_rate=0.5, scan_layers=True)
    tokens = np.random.default_rng(0).normal(size=(1, 3, 4)).astype(np.float32)
    tokens = np.broadcast_to(tokens, (256, 3, 4))
    params = random_params(encoder, tokens)
    rngs = {'dropout': jax.random.key(0)}
    output, _ = encoder.apply({'params': params}, tokens, train=True, rngs=rngs)
    # In the second and in the third block, each branch is either kept or dropped.
    assert len(np.unique(np.asarray(output).reshape(256, -1).round(3), axis=0)) == 2**4
