import functools
import itertools
from pathlib import Path
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_jax.layers.transformer import SelfAttention
from vivit_jax.models.rpe_stdt.clusters import count_clusters, pair_clusters, section_offsets
from vivit_jax.models.rpe_stdt.relative_position import RelativePosition

# The numbers of offsets 0 ... 13, by ratio.
SECTIONS = {
    0.5: [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1],
    1.0: [0, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2],
    1.5: [0, 1, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3],
    1.9: [0, 1, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3],
    2.0: [0, 1, 2, 2, 3, 3, 3, 3, 3, 3, 4, 4, 4, 4],
    2.5: [0, 1, 2, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4],
}
CLUSTERS = {0.5: 10, 1.0: 26, 1.5: 50, 1.9: 50, 2.0: 82, 2.5: 122}

# The clusters of all patches of a 14 x 14 grid, relative to the patch in row 7, column 7.
PICTURE = """
48 47 47 47 47 47 46 45 44 43 43 43 43 43
41 40 40 40 40 40 39 38 37 36 36 36 36 36
41 40 40 40 40 40 39 38 37 36 36 36 36 36
41 40 40 40 40 40 39 38 37 36 36 36 36 36
41 40 40 40 40 40 39 38 37 36 36 36 36 36
41 40 40 40 40 40 39 38 37 36 36 36 36 36
34 33 33 33 33 33 32 31 30 29 29 29 29 29
27 26 26 26 26 26 25 24 23 22 22 22 22 22
20 19 19 19 19 19 18 17 16 15 15 15 15 15
13 12 12 12 12 12 11 10  9  8  8  8  8  8
13 12 12 12 12 12 11 10  9  8  8  8  8  8
13 12 12 12 12 12 11 10  9  8  8  8  8  8
13 12 12 12 12 12 11 10  9  8  8  8  8  8
13 12 12 12 12 12 11 10  9  8  8  8  8  8
"""

pytestmark = pytest.mark.usefixtures('exact_matmuls')


def _random(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _cluster(one, other, ratio, function, method):
    """The cluster of a pair of places (row, column, ...), computed from the definition."""
    reach = int(2 * ratio)

    def number(offset):
        if function == 'clip':
            return max(-reach, min(reach, offset))
        return int(np.sign(offset)) * SECTIONS[ratio][abs(offset)]

    offsets = [a - b for a, b in zip(one, other, strict=True)]
    if method == 'euclidean':
        return number(round(sum(x**2 for x in offsets) ** 0.5)) + reach
    digits = [number(x) + reach for x in offsets]
    return sum(x * (2 * reach + 1) ** power for power, x in enumerate(reversed(digits)))


def _clusters(grid, ratio, function, method):
    places = list(itertools.product(*map(range, grid)))
    last = (2 * int(2 * ratio) + 1) ** (len(grid) if method == 'product' else 1)
    clusters = np.full((len(places) + 1, len(places) + 1), last)
    for i, j in np.ndindex(len(places), len(places)):
        clusters[i + 1, j + 1] = _cluster(places[i], places[j], ratio, function, method)
    return clusters


def _logits(query, key, params, clusters):
    """Logits of one example [n k d], computed pair by pair."""
    query, key = np.float64(query), np.float64(key)
    num_tokens, num_heads, head_dim = query.shape
    logits = np.zeros((num_heads, num_tokens, num_tokens))
    for head, i, j in np.ndindex(logits.shape):
        for name, token, cluster in (
            ('key_table', query[i, head], clusters[i, j]),
            ('query_table', key[j, head], clusters[j, i]),
        ):
            if name in params:
                table = params[name][head % len(params[name])]
                logits[head, i, j] += token @ np.float64(table[:, cluster])
    return logits / head_dim**0.5


@pytest.mark.parametrize('ratio', SECTIONS)
def test_sections_are_those_of_the_table(ratio):
    offsets = np.arange(-13, 14)
    mirrored = [-x for x in SECTIONS[ratio][:0:-1]]
    np.testing.assert_array_equal(section_offsets(offsets, ratio), mirrored + SECTIONS[ratio])


@pytest.mark.parametrize('ratio', CLUSTERS)
def test_number_of_clusters_is_that_of_the_table(ratio):
    assert count_clusters((14, 14), ratio, 'product') == CLUSTERS[ratio]
    side = round((CLUSTERS[ratio] - 1) ** 0.5)
    assert count_clusters((14, 14), ratio, 'euclidean') == side + 1
    assert count_clusters((16,), ratio, 'product') == side + 1
    assert pair_clusters((14, 14), ratio).max() == CLUSTERS[ratio] - 1


@pytest.mark.parametrize('method', ['product', 'euclidean'])
@pytest.mark.parametrize('function', ['sectioned', 'clip'])
@pytest.mark.parametrize('ratio', [0.5, 1.5, 2.5])
@pytest.mark.parametrize('grid', [(9,), (6, 4), (3, 1), (2, 3, 5)])
def test_clusters_equal_their_definition(grid, ratio, function, method):
    found = pair_clusters(grid, ratio, function, method)
    np.testing.assert_array_equal(found, _clusters(grid, ratio, function, method))


def test_clusters_seen_from_the_middle_are_those_of_the_picture():
    picture = np.array(PICTURE.split(), int)
    np.testing.assert_array_equal(pair_clusters((14, 14))[1 + 7 * 14 + 7, 1:], picture)
    drawn = Path(__file__).parents[2] / 'docs' / 'clusters.svg'
    numbers = [x.text for x in ElementTree.parse(drawn).iter('{http://www.w3.org/2000/svg}text')]
    np.testing.assert_array_equal(np.array(numbers, int), picture)


@pytest.mark.parametrize('terms', ['both', 'query', 'key'])
@pytest.mark.parametrize('shared_heads', [True, False])
@pytest.mark.parametrize('rule', [(1.5, 'sectioned', 'product'), (1.0, 'clip', 'euclidean')])
def test_logits_equal_the_equation(random_params, rule, shared_heads, terms):
    module = RelativePosition((4, 3), *rule, terms, shared_heads)
    query, key = _random(2, 13, 2, 5), _random(2, 13, 2, 5, seed=2)
    params = random_params(module, query, key)
    num_clusters = {'product': 50, 'euclidean': 6}[rule[-1]]
    names = {'both': ['key_table', 'query_table'], 'query': ['key_table'], 'key': ['query_table']}
    shape = (1 if shared_heads else 2, 5, num_clusters)
    assert jax.tree.map(np.shape, params) == dict.fromkeys(names[terms], shape)

    logits = module.apply({'params': params}, query, key)
    clusters = _clusters((4, 3), *rule)
    expected = [_logits(*pair, params, clusters) for pair in zip(query, key, strict=True)]
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_logits_of_some_tokens_are_those_within_the_sequence(random_params):
    module = RelativePosition((12,))
    query, key = _random(2, 13, 2, 5), _random(2, 13, 2, 5, seed=2)
    params = random_params(module, query, key)
    places = np.array([[0, 1, 5, 12], [0, 3, 4, 11]])
    whole = np.asarray(module.apply({'params': params}, query, key))
    query, key = (np.take_along_axis(x, places[:, :, None, None], 1) for x in (query, key))
    some = module.apply({'params': params}, query, key, places)
    for example, kept in enumerate(places):
        expected = whole[example][:, kept][:, :, kept]
        np.testing.assert_allclose(some[example], expected, rtol=1e-4, atol=1e-5)


def test_logits_of_equal_tokens_depend_on_their_offset_alone(random_params):
    height, width = 6, 5
    module = RelativePosition((height, width))
    query, key = (
        np.broadcast_to(_random(1, 1, 2, 4, seed=seed), (1, 31, 2, 4)).copy() for seed in (1, 2)
    )
    params = random_params(module, query, key)
    logits = np.asarray(module.apply({'params': params}, query, key))[0, :, 1:, 1:]
    logits = logits.reshape(2, height, width, height, width)
    np.testing.assert_allclose(
        logits[:, :-2, :-1, :-2, :-1], logits[:, 2:, 1:, 2:, 1:], rtol=1e-5, atol=1e-6
    )
    for forward, backward in (
        (logits[:, 0, 0, 1, 0], logits[:, 1, 0, 0, 0]),
        (logits[:, 0, 0, 0, 1], logits[:, 0, 1, 0, 0]),
        (logits[:, 0, 0, 0, 1], logits[:, 0, 0, 1, 0]),
    ):
        assert np.abs(forward - backward).min() > 0.01


@pytest.mark.parametrize('with_places', [False, True])
@pytest.mark.parametrize('shared_heads', [True, False])
def test_gradients_equal_those_of_the_equation(random_params, shared_heads, with_places):
    module = RelativePosition((3, 2), shared_heads=shared_heads)
    query, key, cotangent = _random(2, 7, 2, 5), _random(2, 7, 2, 5, seed=2), _random(2, 2, 7, 7)
    params = random_params(module, query, key)
    clusters, places = np.tile(_clusters((3, 2), 1.5, 'sectioned', 'product'), (2, 1, 1)), None
    if with_places:
        places = np.array([[0, 3, 2, 5, 1, 6, 4], [0, 1, 2, 3, 4, 6, 5]])
        clusters = np.stack([x[p][:, p] for x, p in zip(clusters, places, strict=True)])

    def direct(params, query, key):
        # Tables [b q n k d] with an entry for every pair, which the module avoids.
        by_query, by_key = (
            jnp.moveaxis(jnp.broadcast_to(params[name], (2, 5, 50)), -1, 0)[index]
            for name, index in (('key_table', clusters), ('query_table', clusters.swapaxes(1, 2)))
        )
        logits = jnp.einsum('bqkd,bqnkd->bkqn', query, by_query)
        return (logits + jnp.einsum('bnkd,bqnkd->bkqn', key, by_key)) / jnp.sqrt(5)

    def found(params, query, key):
        return module.apply({'params': params}, query, key, places)

    inputs = (params, query, key)
    grads, expected = (
        jax.jit(jax.grad(lambda *x, f=f: (f(*x) * cotangent).sum(), (0, 1, 2)))(*inputs)
        for f in (found, direct)
    )
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), grads, expected
    )


def test_logits_are_float32_and_no_larger_array_is_made(random_params):
    module = RelativePosition((5, 4))
    query, key = (jnp.asarray(_random(2, 21, 3, 16), jnp.bfloat16) for _ in range(2))
    params = random_params(module, query, key)
    jaxpr = jax.make_jaxpr(module.apply)({'params': params}, query, key)
    (logits,) = jaxpr.out_avals
    assert (logits.shape, logits.dtype) == ((2, 3, 21, 21), jnp.float32)
    largest = max(x.aval.size for equation in jaxpr.eqns for x in equation.outvars)
    assert largest == 2 * 3 * 21 * 50  # products with all clusters


def test_tables_start_at_zero():
    query = _random(1, 5, 2, 4)
    logits, variables = RelativePosition((4,)).init_with_output(jax.random.key(0), query, query)
    assert len(jax.tree.leaves(variables)) == 2
    assert not any(x.any() for x in jax.tree.leaves((logits, variables)))


def test_attention_adds_the_logits_to_its_own(random_params):
    relative = functools.partial(RelativePosition, (2, 3))
    module, tokens = SelfAttention(2, relative=relative), _random(2, 7, 8)
    params = random_params(module, tokens)
    output, captured = module.apply({'params': params}, tokens, capture_attention=True)
    plain, _ = module.apply({'params': params}, tokens)
    np.testing.assert_allclose(plain, output, rtol=1e-4, atol=1e-5)

    query, key, value = (
        np.einsum('bnd,dkm->bnkm', tokens, params[name]['kernel']) + params[name]['bias']
        for name in ('query', 'key', 'value')
    )
    clusters = _clusters((2, 3), 1.5, 'sectioned', 'product')
    for example in range(2):
        scores = np.einsum('qkm,nkm->kqn', query[example], key[example]) / 2
        tables = params['relative_position']
        weights = np.exp(scores + _logits(query[example], key[example], tables, clusters))
        weights /= weights.sum(-1, keepdims=True)
        np.testing.assert_allclose(captured['tokens'][example], weights, rtol=1e-4, atol=1e-5)
        mixed = np.einsum('kqn,nkm->qkm', weights, value[example])
        expected = np.einsum('qkm,kmd->qd', mixed, params['out']['kernel']) + params['out']['bias']
        np.testing.assert_allclose(output[example], expected, rtol=1e-4, atol=1e-5)


def test_attention_without_room_for_the_logits_is_an_error():
    relative = functools.partial(RelativePosition, (4,))
    module = SelfAttention(2, implementation='chunked', relative=relative)
    with pytest.raises(ValueError, match="'chunked' takes no bias: use 'auto' or 'einsum'"):
        jax.eval_shape(module.init, jax.random.key(0), _random(1, 5, 8))


def test_light_attention_has_its_own_width_and_no_bias(random_params):
    module, tokens = SelfAttention(3, head_dim=5, has_bias=False), _random(2, 4, 8)
    params = random_params(module, tokens)
    projection = {'kernel': (8, 3, 5)}
    assert jax.tree.map(np.shape, params) == {
        **dict.fromkeys(('query', 'key', 'value'), projection),
        'out': {'kernel': (3, 5, 8), 'bias': (8,)},
    }
    query, key, value = (
        np.einsum('bnd,dkm->bnkm', tokens, params[name]['kernel'])
        for name in ('query', 'key', 'value')
    )
    weights = np.exp(np.einsum('bqkm,bnkm->bkqn', query, key) / np.sqrt(5))
    weights /= weights.sum(-1, keepdims=True)
    mixed = np.einsum('bkqn,bnkm->bqkm', weights, value)
    expected = np.einsum('bqkm,kmd->bqd', mixed, params['out']['kernel']) + params['out']['bias']
    output, _ = module.apply({'params': params}, tokens)
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)
