import flax.linen as nn
import jax
import numpy as np
import pytest

from vivit_jax.layers.specification import TransformerSpecification
from vivit_jax.layers.transformer import DropPath, EncoderBlock, MlpBlock, SelfAttention
from vivit_jax.models.ctn.model import PostNormBlock
from vivit_jax.models.vivit.model import FactorizedSelfAttentionBlock

pytestmark = pytest.mark.usefixtures('exact_matmuls')


def _layer_norm(x, params, epsilon):
    x = np.float64(x)
    normal = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
    return np.float32(normal * params['scale'] + params['bias'])


def _spec(**keywords):
    return TransformerSpecification(hidden_size=8, num_heads=2, mlp_dim=12, **keywords)


def _block(attentions=(('tokens',),), **keywords):
    """The block of one or two attentions along the given axes."""
    if len(attentions) == 1:
        return EncoderBlock(_spec(**keywords), axes=attentions[0])
    order = tuple(axis for (axis,) in attentions)
    return FactorizedSelfAttentionBlock(_spec(**keywords), order=order)


def _tokens(*shape, scale=1.0):
    return np.random.default_rng(1).normal(0, scale, shape).astype(np.float32)


@pytest.mark.parametrize('gelu', ['tanh', 'exact'])
@pytest.mark.parametrize('layer_norm_eps', [1e-6, 1e-2])
@pytest.mark.parametrize(
    ('attentions', 'attention_suffixes', 'last_norm', 'mlp'),
    [
        ((('tokens',),), ['0'], 'LayerNorm_1', 'MlpBlock_0'),
        ((('time', 'space'),), ['0'], 'LayerNorm_1', 'MlpBlock_0'),
        ((('space',), ('time',)), ['space', 'time'], 'LayerNorm_mlp', 'MlpBlock'),
        ((('time',), ('space',)), ['time', 'space'], 'LayerNorm_mlp', 'MlpBlock'),
    ],
)
def test_block_equals_pre_norm_equations(
    random_params, attentions, attention_suffixes, last_norm, mlp, layer_norm_eps, gelu
):
    # Tokens are so small that the epsilon of the first norm counts.
    tokens = _tokens(2, 3, 5, 8, scale=2e-3)
    block = _block(attentions=attentions, layer_norm_eps=layer_norm_eps, gelu=gelu)
    params = random_params(block, tokens)
    output, captured = block.apply({'params': params}, tokens)

    expected = tokens
    for axes, suffix in zip(attentions, attention_suffixes, strict=True):
        normal = _layer_norm(expected, params[f'LayerNorm_{suffix}'], layer_norm_eps)
        attention = {'params': params[f'MultiHeadDotProductAttention_{suffix}']}
        expected = expected + SelfAttention(2, axes).apply(attention, normal)[0]
    normal = _layer_norm(expected, params[last_norm], layer_norm_eps)
    expected = expected + MlpBlock(12, gelu=gelu).apply({'params': params[mlp]}, normal)
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-5)
    assert captured == {}


def test_block_equals_post_norm_equations(random_params):
    tokens = _tokens(2, 5, 8)
    block = PostNormBlock(_spec())
    params = random_params(block, tokens)
    shapes = jax.eval_shape(_block().init, jax.random.key(0), tokens)
    assert jax.tree.map(np.shape, shapes['params']) == jax.tree.map(np.shape, params)

    attention = {'params': params['MultiHeadDotProductAttention_0']}
    branch, _ = SelfAttention(2).apply(attention, tokens)
    expected = _layer_norm(tokens + branch, params['LayerNorm_0'], 1e-6)
    branch = MlpBlock(12).apply({'params': params['MlpBlock_0']}, expected)
    expected = _layer_norm(expected + branch, params['LayerNorm_1'], 1e-6)
    output, _ = block.apply({'params': params}, tokens)
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ('attentions', 'num_branches'), [((('tokens',),), 2), ((('space',), ('time',)), 3)]
)
def test_block_drops_its_branches_independently(random_params, attentions, num_branches):
    tokens = _tokens(128, 2, 3, 8)
    block = _block(attentions=attentions)
    params = random_params(block, tokens)
    dropped = []

    def watch(next_call, args, kwargs, context):
        output = next_call(*args, **kwargs)
        if isinstance(context.module, DropPath):
            dropped.append(np.asarray(output == 0).all((1, 2, 3)))
        return output

    with nn.intercept_methods(watch):
        rngs = {'dropout': jax.random.key(0)}
        output, _ = block.apply({'params': params}, tokens, 0.5, train=True, rngs=rngs)

    assert len(dropped) == num_branches
    outcomes, counts = np.unique(np.stack(dropped), axis=1, return_counts=True)
    assert outcomes.shape[1] == 2**num_branches
    assert counts.min() > 128 / 2**num_branches / 3
    same = (np.asarray(output) == tokens).all((1, 2, 3))
    np.testing.assert_array_equal(same, np.all(dropped, 0))  # only then the block is the identity


def test_block_drops_channels_of_the_attention_branch(random_params):
    tokens = np.zeros((50, 3, 8), np.float32)
    block = _block(dropout_rate=0.5)
    params = jax.tree.map(np.zeros_like, random_params(block, tokens))  # silences the other branch
    params['MultiHeadDotProductAttention_0']['out']['bias'] += 1
    rngs = {'dropout': jax.random.key(0)}
    output = np.asarray(block.apply({'params': params}, tokens, train=True, rngs=rngs)[0])
    assert set(np.unique(output)) == {0, 2}
    assert abs(output.mean() - 1) < 0.15
    np.testing.assert_array_equal(block.apply({'params': params}, tokens)[0], 1)


def test_block_captures_by_attention_and_axis(random_params):
    block, tokens = _block(attentions=(('space',), ('time',))), _tokens(2, 3, 5, 8)
    params = random_params(block, tokens)
    _, captured = block.apply({'params': params}, tokens, capture_attention=True)
    assert jax.tree.map(np.shape, captured) == {
        'MultiHeadDotProductAttention_space': {'space': (2, 3, 2, 5, 5)},
        'MultiHeadDotProductAttention_time': {'time': (2, 5, 2, 3, 3)},
    }
