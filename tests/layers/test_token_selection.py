import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_jax.layers.transformer import EncoderBlock
from vivit_jax.models.rpe_stdt import temporal
from vivit_jax.models.rpe_stdt.specification import RpeStdt
from vivit_jax.models.rpe_stdt.temporal import TemporalBlock, TemporalEncoder, select_frames

ATTENTION = 'MultiHeadDotProductAttention_0'

pytestmark = pytest.mark.usefixtures('exact_matmuls')


def _random(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _weights(batch, num_heads, num_tokens):
    scores = np.exp(2 * _random(batch, num_heads, num_tokens, num_tokens, seed=2))
    return scores / scores.sum(-1, keepdims=True)


def _places(batch, num_tokens):
    return np.tile(np.arange(num_tokens), (batch, 1))


def _kept(weights):
    """The indices of the tokens of one example that stay, given its weights [k n n]."""
    mean = np.float64(weights).sum(axis=0) / len(weights)
    spread = {i: np.std(mean[i, 1:]) for i in range(1, len(mean))}
    ranked = sorted(spread, key=spread.get, reverse=True)
    return [0, *sorted(ranked[: (len(ranked) + 1) // 2])]


class _Probe(nn.Module):
    """A block that returns its inputs unchanged, and captures them."""

    spec: RpeStdt
    num_frames: int
    selects: bool

    def __call__(self, tokens, places, rate, train, capture_attention):
        return tokens, places, {'tokens': tokens, 'places': places, 'selects': self.selects}


def _spec(**keywords):
    """A specification whose temporal blocks are like spatial blocks, with two heads."""
    sizes = {'hidden_size': 6, 'num_heads': 2, 'mlp_dim': 12, 'temporal_num_heads': 2}
    return RpeStdt(**{**sizes, 'light': False, 'subsample': 'none', **keywords})


@pytest.mark.parametrize('num_frames', [1, 2, 5, 8])
def test_selection_equals_a_loop(num_frames):
    tokens, weights = _random(6, num_frames + 1, 4), _weights(6, 3, num_frames + 1)
    places = np.cumsum(np.random.default_rng(0).integers(1, 4, tokens.shape[:2]), axis=1)
    found, found_places = select_frames(tokens, places, weights)
    kept = [_kept(x) for x in weights]
    assert found.shape == (6, 1 + (num_frames + 1) // 2, 4)
    np.testing.assert_array_equal(found, [x[k] for x, k in zip(tokens, kept, strict=True)])
    np.testing.assert_array_equal(found_places, [x[k] for x, k in zip(places, kept, strict=True)])
    if num_frames > 2:
        assert len({tuple(k) for k in kept}) > 1


def test_selection_looks_neither_at_the_class_token_nor_at_single_heads():
    weights = np.zeros((1, 2, 5, 5), np.float32)
    weights[:, :, 1:, 1:] = 0.25
    weights[:, :, 0, 1] = 1  # the class token's attention does not count
    weights[:, :, 1] = [1, 0, 0, 0, 0]  # attends to the class token only
    weights[:, 0, 2], weights[:, 1, 2] = [0, 1, 1, 0, 0], [0, 0, 0, 1, 1]  # equal on average
    weights[:, :, 3] = [0.6, 0.1, 0.1, 0.1, 0.1]
    weights[:, :, 4] = [0, 0.3, 0.3, 0.2, 0.2]
    _, places = select_frames(_random(1, 5, 4), _places(1, 5), weights)
    # Only frame 4 attends selectively. The second place goes to the first of the other frames.
    np.testing.assert_array_equal(places, [[0, 1, 4]])


def test_equal_weights_give_finite_gradients():
    weights, places = jnp.full((1, 2, 5, 5), 0.2), _places(1, 5)

    def loss(tokens, weights):
        return select_frames(tokens, places, weights)[0].sum()

    of_tokens, of_weights = jax.grad(loss, (0, 1))(_random(1, 5, 4), weights)
    np.testing.assert_array_equal(of_tokens[0, :, 0], [1, 1, 1, 0, 0])
    np.testing.assert_array_equal(of_weights, 0)


def test_selecting_block_captures_on_request_alone():
    block, tokens, places = TemporalBlock(_spec(), selects=True), _random(1, 4, 6), _places(1, 4)
    for capture in (False, True):
        init = functools.partial(block.init_with_output, capture_attention=capture)
        shapes = jax.eval_shape(init, jax.random.key(0), tokens, places)
        (_, _, captured), _ = shapes
        assert list(captured) == [ATTENTION] * capture


@pytest.mark.parametrize('relative', [True, False])
def test_selecting_block_returns_the_kept_tokens_of_a_plain_one(random_params, relative):
    spec = _spec(temporal_pos='rpe' if relative else 'none')
    make = functools.partial(TemporalBlock, spec, num_frames=7)
    tokens, places = _random(3, 8, 6), _places(3, 8)
    params = random_params(make(), tokens, places)

    plain, same_places, _ = jax.jit(make().apply)({'params': params}, tokens, places)
    np.testing.assert_array_equal(same_places, places)
    apply = functools.partial(make(selects=True).apply, capture_attention=True)
    output, kept, captured = jax.jit(apply)({'params': params}, tokens, places)
    weights = np.asarray(captured[ATTENTION]['tokens'])
    assert weights.shape == (3, 2, 8, 8)
    np.testing.assert_array_equal(kept, [_kept(x) for x in weights])
    expected = np.take_along_axis(np.asarray(plain), np.asarray(kept)[:, :, None], axis=1)
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)
    if not relative:
        expected, _ = jax.jit(EncoderBlock(spec).apply)({'params': params}, tokens)
        np.testing.assert_array_equal(plain, expected)


def test_encoder_carries_the_places_of_kept_frames_to_relative_positions(random_params):
    spec = _spec(temporal_num_layers=2, subsample='topk', subsample_layers=(0,))
    encoder = TemporalEncoder(spec)
    tokens = _random(4, 9, 6)
    params = random_params(encoder, tokens)
    apply = jax.jit(functools.partial(encoder.apply, capture_attention=True))
    _, captured = apply({'params': params}, tokens)

    first, second = ({'params': params[f'encoderblock_{layer}']} for layer in range(2))

    block = TemporalBlock(spec, num_frames=8)
    run = jax.jit(functools.partial(block.apply, capture_attention=True))
    plain, _, _ = run(first, tokens, _places(4, 9))
    kept = np.array([_kept(x) for x in captured['encoderblock_0'][ATTENTION]['tokens']])
    tokens = np.take_along_axis(np.asarray(plain), kept[:, :, None], axis=1)

    def weights(places):
        return run(second, tokens, places)[2][ATTENTION]['tokens']

    found = captured['encoderblock_1'][ATTENTION]['tokens']
    np.testing.assert_allclose(found, weights(kept), rtol=1e-4, atol=1e-5)
    assert np.abs(found - weights(_places(4, 5))).max() > 0.01


@pytest.mark.parametrize('num_frames', [1, 6, 7])
@pytest.mark.parametrize('subsample', ['max', 'avg', 'conv'])
def test_pooling_equals_loops_over_frames(monkeypatch, random_params, subsample, num_frames):
    monkeypatch.setattr(temporal, 'TemporalBlock', _Probe)
    encoder = TemporalEncoder(
        _spec(
            hidden_size=4,
            temporal_num_layers=3,
            temporal_pos='none',
            subsample=subsample,
            subsample_layers=(1,),
        )
    )
    tokens = _random(2, num_frames + 1, 4)
    params = random_params(encoder, tokens)
    assert ('subsample_1' in params) == (subsample == 'conv')
    _, captured = encoder.apply({'params': params}, tokens, capture_attention=True)

    frames = tokens[:, 1:]
    pairs = [frames[:, start : start + 2] for start in range(0, num_frames, 2)]
    if subsample == 'conv':
        kernel, bias = params['subsample_1']['kernel'], params['subsample_1']['bias']
        padded = np.pad(frames, ((0, 0), (1, 1), (0, 0)))
        pooled = [
            np.einsum('btd,tde->be', padded[:, start : start + 3], kernel) + bias
            for start in range(0, num_frames, 2)
        ]
    else:
        pooled = [pair.max(1) if subsample == 'max' else pair.mean(1) for pair in pairs]
    expected = np.stack([tokens[:, 0], *pooled], axis=1)
    np.testing.assert_array_equal(captured['encoderblock_0']['tokens'], tokens)
    for layer in (1, 2):
        seen = captured[f'encoderblock_{layer}']
        np.testing.assert_allclose(seen['tokens'], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(seen['places'], 2 * [[0, *range(1, num_frames + 1, 2)]])
    assert not any(seen['selects'] for seen in captured.values())


@pytest.mark.parametrize(
    ('subsample', 'layers', 'expected'),
    [('topk', (1, 3), [1, 3]), ('topk', (0, 2), [0, 2]), ('none', (1, 3), []), ('topk', (), [])],
)
def test_blocks_select_where_they_should(monkeypatch, subsample, layers, expected):
    monkeypatch.setattr(temporal, 'TemporalBlock', _Probe)
    encoder = TemporalEncoder(
        _spec(hidden_size=2, num_heads=1, subsample=subsample, subsample_layers=layers)
    )
    (_, captured), _ = encoder.init_with_output(
        jax.random.key(0), _random(1, 4, 2), capture_attention=True
    )
    selecting = [layer for layer in range(4) if captured[f'encoderblock_{layer}']['selects']]
    assert selecting == expected


@pytest.mark.parametrize(
    ('num_frames', 'lengths'), [(16, [17, 17, 9, 9]), (5, [6, 6, 4, 4]), (1, [2, 2, 2, 2])]
)
def test_encoder_halves_the_frames(num_frames, lengths):
    encoder = TemporalEncoder(_spec(subsample='topk', subsample_layers=(1, 3)))
    init = functools.partial(encoder.init_with_output, capture_attention=True)
    tokens = jnp.zeros((2, num_frames + 1, 6))
    (output, captured), _ = jax.eval_shape(init, jax.random.key(0), tokens)
    found = [captured[f'encoderblock_{layer}'][ATTENTION]['tokens'].shape for layer in range(4)]
    assert found == [(2, 2, length, length) for length in lengths]
    assert output.shape == (2, 1 + (lengths[-1] - 1 + 1) // 2, 6)
