import flax.linen as nn
import jax
import numpy as np

from vivit_jax.layers.attention import SelfAttention
from vivit_jax.layers.blocks import EncoderBlock
from vivit_jax.layers.drop_path import DropPath
from vivit_jax.layers.mlp import MlpBlock


def _layer_norm(x, params):
    x = np.float64(x)
    normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return np.float32(normal * params['scale'] + params['bias'])


def _block_and_params(tokens, **kwargs):
    block = EncoderBlock(num_heads=2, mlp_dim=12, **kwargs)
    shapes = jax.eval_shape(block.init, jax.random.key(0), tokens)['params']
    rng = np.random.default_rng(0)
    return block, jax.tree.map(lambda x: rng.normal(0, 0.4, x.shape).astype(np.float32), shapes)


def test_block_equals_pre_norm_equations():
    # Tokens are so small that the epsilon of the first norm counts.
    tokens = np.random.default_rng(1).normal(0, 2e-3, (2, 3, 5, 8)).astype(np.float32)
    block, params = _block_and_params(tokens)
    with jax.default_matmul_precision('highest'):
        output = block.apply({'params': params}, tokens)

        normal = _layer_norm(tokens, params['LayerNorm_0'])
        attention = {'params': params['MultiHeadDotProductAttention_0']}
        middle = tokens + SelfAttention(2).apply(attention, normal)
        normal = _layer_norm(middle, params['LayerNorm_1'])
        expected = middle + MlpBlock(12).apply({'params': params['MlpBlock_0']}, normal)
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)


def test_block_drops_its_two_branches_independently():
    tokens = np.random.default_rng(1).normal(size=(64, 2, 8)).astype(np.float32)
    block, params = _block_and_params(tokens, drop_path_rate=0.5)
    dropped = []

    def watch(next_call, args, kwargs, context):
        output = next_call(*args, **kwargs)
        if isinstance(context.module, DropPath):
            dropped.append(np.asarray(output == 0).all((1, 2)))
        return output

    with nn.intercept_methods(watch):
        rngs = {'dropout': jax.random.key(0)}
        output = block.apply({'params': params}, tokens, train=True, rngs=rngs)

    attention, mlp = dropped
    assert 0 < (attention & ~mlp).sum() < 64
    assert 0 < (~attention & mlp).sum() < 64
    both = attention & mlp
    assert 0 < both.sum() < 64
    same = (np.asarray(output) == tokens).all((1, 2))
    np.testing.assert_array_equal(same, both)  # only then the block is the identity


def test_block_drops_channels_of_the_attention_branch():
    tokens = np.zeros((50, 3, 8), np.float32)
    block, params = _block_and_params(tokens, dropout_rate=0.5)
    params = jax.tree.map(np.zeros_like, params)  # switches the other branch off
    params['MultiHeadDotProductAttention_0']['out']['bias'] += 1
    rngs = {'dropout': jax.random.key(0)}
    output = np.asarray(block.apply({'params': params}, tokens, train=True, rngs=rngs))
    assert set(np.unique(output)) == {0, 2}
    assert abs(output.mean() - 1) < 0.15
    np.testing.assert_array_equal(block.apply({'params': params}, tokens), 1)
