"""Linear projections compared with Flax's, and their gradients compared with equations."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_jax.layers.linear import Linear, project

pytestmark = pytest.mark.usefixtures('exact_matmuls')


@pytest.mark.parametrize(
    ('shape', 'features', 'num_inputs', 'use_bias'),
    [((2, 5, 6), (7,), 1, True), ((2, 3, 5, 4), (3, 2), 1, False), ((2, 5, 3, 2), (4,), 2, True)],
)
def test_projection_is_that_of_flax(shape, features, num_inputs, use_bias):
    x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    init = {'kernel_init': nn.initializers.xavier_uniform(), 'bias_init': nn.initializers.ones}
    reference = nn.DenseGeneral(features, axis=range(-num_inputs, 0), use_bias=use_bias, **init)
    linear = Linear(features, num_inputs, use_bias, **init)
    variables = reference.init(jax.random.key(0), x)
    jax.tree.map(np.testing.assert_array_equal, linear.init(jax.random.key(0), x), variables)

    def loss(module, variables, x):
        return jnp.sin(module.apply(variables, x)).sum()

    expected = jax.value_and_grad(loss, (1, 2))(reference, variables, x)
    found = jax.value_and_grad(loss, (1, 2))(linear, variables, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-5), found, expected)


@pytest.mark.parametrize(('inputs', 'outputs'), [(3, 7), (7, 3)])
def test_product_and_its_gradients_are_those_of_the_equations(inputs, outputs):
    draw = np.random.default_rng(0).normal
    x, kernel = draw(size=(2, 5, inputs)), draw(size=(inputs, outputs))
    grad = draw(size=(2, 5, outputs))
    product, pull = jax.vjp(project, *(jnp.asarray(y, jnp.float32) for y in (x, kernel)))
    of_x, of_kernel = pull(jnp.asarray(grad, jnp.float32))
    for found, expected in (
        (product, x @ kernel),
        (of_x, grad @ kernel.T),
        (of_kernel, np.einsum('bnc,bnd->cd', x, grad)),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('platform', ['cpu', 'cuda', 'tpu'])
def test_no_product_of_a_training_step_is_transposed(platform):
    x = jax.ShapeDtypeStruct((2, 3, 5, 4), jnp.bfloat16)
    linear = Linear((3, 2), dtype=jnp.bfloat16)
    variables = jax.eval_shape(linear.init, jax.random.key(0), x)

    def loss(variables, x):
        return linear.apply(variables, x).astype(jnp.float32).sum()

    traced = jax.jit(jax.grad(loss, (0, 1))).trace(variables, x)
    program = traced.lower(lowering_platforms=(platform,)).as_text()
    assert program.count('stablehlo.dot_general') == 2  # only the gradient is used
    assert 'stablehlo.transpose' not in program
