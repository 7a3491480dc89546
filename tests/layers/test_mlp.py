import math

import jax
import numpy as np
import pytest

from vivit_jax.layers.transformer import MlpBlock


def _params(width, mlp_dim):
    rng = np.random.default_rng(0)

    def dense(inputs, outputs):
        kernel, bias = rng.normal(0, 0.5, (inputs, outputs)), rng.normal(0, 0.5, outputs)
        return {'kernel': np.float32(kernel), 'bias': np.float32(bias)}

    return {'Dense_0': dense(width, mlp_dim), 'Dense_1': dense(mlp_dim, width)}


def _tanh_gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def _exact_gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / np.sqrt(2)))


def _quick_gelu(x):
    return x / (1 + np.exp(-1.702 * x))


@pytest.mark.parametrize(
    ('gelu', 'formula'), [('tanh', _tanh_gelu), ('exact', _exact_gelu), ('quick', _quick_gelu)]
)
def test_mlp_equals_formula(exact_matmuls, gelu, formula):
    params = _params(4, 6)
    x = np.random.default_rng(1).normal(0, 2, (2, 3, 4)).astype(np.float32)
    output = MlpBlock(6, gelu=gelu).apply({'params': params}, x)

    first, second = params['Dense_0'], params['Dense_1']
    hidden = formula(np.float64(x) @ first['kernel'] + first['bias'])
    # The other GELU would differ by up to 5e-4.
    np.testing.assert_allclose(output, hidden @ second['kernel'] + second['bias'], atol=1e-5)


def test_mlp_dropout_follows_each_dense_layer():
    params = _params(4, 6)
    params['Dense_1'] = {'kernel': np.zeros((6, 4)), 'bias': np.ones(4)}
    x = np.ones((500, 4), np.float32)
    rngs = {'dropout': jax.random.key(0)}

    # With a kernel of zeros the second dropout is alone: it zeroes or doubles the bias.
    output = MlpBlock(6, dropout_rate=0.5).apply({'params': params}, x, train=True, rngs=rngs)
    assert set(np.unique(output)) == {0, 2}
    assert abs(np.mean(output) - 1) < 0.1

    # Channels that it keeps have different sums because of the first dropout.
    params = _params(4, 6)
    output = MlpBlock(6, dropout_rate=0.5).apply({'params': params}, x, train=True, rngs=rngs)
    kept = np.asarray(output)[np.asarray(output)[:, 0] != 0, 0]
    assert len(np.unique(kept.round(4))) > 10


@pytest.mark.parametrize('gelu', ['tanh', 'exact', 'quick'])
def test_training_keeps_only_what_enters_and_leaves_the_gelu(gelu):
    tokens = np.ones((2, 3, 4), np.float32)
    mlp = MlpBlock(mlp_dim=20, gelu=gelu)
    variables = mlp.init(jax.random.key(0), tokens)
    _, gradient = jax.vjp(mlp.apply, variables, tokens)
    kept = [x for x in jax.tree.leaves(gradient) if x.shape == (2, 3, 20)]
    assert len(kept) == 2
