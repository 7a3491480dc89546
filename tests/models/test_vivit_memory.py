"""Remat and the scan over layers save memory and compilation, and do not change results."""

import math

import jax
import numpy as np
import pytest

from vivit_jax.models.registry import list_models

VIVITS = [name for name in list_models() if name.startswith('vivit')]

pytestmark = pytest.mark.usefixtures('exact_matmuls')


def _loss_and_grads(model, params, clip, **keywords):
    def loss(params):
        logits = model.apply({'params': params}, clip, **keywords).logits
        return (logits * np.arange(1, 6)).sum()

    return jax.jit(jax.value_and_grad(loss))(params)


def _residual_bytes(model, params, clip):
    """The bytes that the forward pass keeps for the gradient of the parameters."""

    def residuals(params):
        return jax.vjp(lambda params: model.apply({'params': params}, clip).logits, params)[1]

    return sum(
        math.prod(x.shape) * x.dtype.itemsize
        for x in jax.tree.leaves(jax.eval_shape(residuals, params))
    )


@pytest.mark.parametrize(
    'keywords',
    [{'scan_layers': True}, {'remat': 'block'}, {'scan_layers': True, 'remat': 'dots'}],
    ids=str,
)
def test_initialization_is_the_same_tree_with_the_same_values(create_tiny, random_clip, keywords):
    clip, key = random_clip(), jax.random.key(0)
    expected = create_tiny('vivit_fe').init(key, clip)
    params = create_tiny('vivit_fe', **keywords).init(key, clip)
    assert jax.tree.structure(params) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, params, expected)


@pytest.mark.parametrize('scan_layers', [False, True])
@pytest.mark.parametrize('name', VIVITS)
def test_remat_keeps_less_for_the_gradient(
    create_tiny, random_clip, random_params, name, scan_layers
):
    clip = random_clip((32, 8, 16, 16, 3))
    params = random_params(create_tiny(name), clip)
    none, dots, block = (
        _residual_bytes(create_tiny(name, scan_layers=scan_layers, remat=remat), params, clip)
        for remat in ('none', 'dots', 'block')
    )
    assert block < 0.8 * dots
    assert dots < 0.8 * none


@pytest.mark.parametrize('scan_layers', [False, True])
def test_remat_repeats_the_masks_of_dropout(
    create_tiny, random_clip, random_params, dropout_key, scan_layers
):
    rates = {'dropout_rate': 0.3, 'attention_dropout_rate': 0.3, 'drop_path_rate': 0.3}
    plain, remat = (
        create_tiny('vivit_joint', scan_layers=scan_layers, remat=remat, **rates)
        for remat in ('none', 'block')
    )
    clip = random_clip()
    params = random_params(plain, clip)
    keywords = {'train': True, 'rngs': {'dropout': dropout_key()}}
    expected, value = (_loss_and_grads(model, params, clip, **keywords) for model in (plain, remat))
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-3), value, expected
    )


@pytest.mark.parametrize('name', VIVITS)
def test_scan_compiles_one_block_for_all_layers(create_tiny, random_clip, random_params, name):
    def count_products(**keywords):
        model, clip = create_tiny(name, **keywords), random_clip()
        params = random_params(model, clip)
        jaxpr = jax.make_jaxpr(lambda params: model.apply({'params': params}, clip).logits)(params)
        return str(jaxpr).count('dot_general[')

    two, four = (count_products(num_layers=n) for n in (2, 4))
    assert four > two
    two_scanned, four_scanned = (count_products(num_layers=n, scan_layers=True) for n in (2, 4))
    assert two_scanned == four_scanned < two


@pytest.mark.parametrize('name', VIVITS)
def test_scan_over_no_layers_is_the_loop_over_none(create_tiny, random_clip, random_params, name):
    loop, scan = (create_tiny(name, num_layers=0, scan_layers=scans) for scans in (False, True))
    variables = {'params': random_params(loop, random_clip())}
    logits, expected = (model.apply(variables, random_clip()).logits for model in (scan, loop))
    np.testing.assert_allclose(logits, expected, rtol=1e-5)
