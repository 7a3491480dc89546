"""Softmax attention in several implementations with equal results.

Queries, keys and values are [b n k d]: batch, tokens, heads, channels of a head. Every
implementation computes the softmax in float32. `'auto'` chooses by the device that a program is
compiled for, not by the device on which it is traced: see `choose`.
"""

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator

import chex
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from vivit_jax.layers.fused_attention import (
    cudnn_attention,
    gpu_attention,
    has_cudnn,
    tpu_attention,
)
from vivit_jax.layers.nearest import hide_distant
from vivit_jax.layers.specification import TransformerSpecification
from vivit_jax.parallel.mesh import on_each_device

_log = logging.getLogger(__name__)

FUSED = ('cudnn', 'pallas')  # kernels without dropout and k-NN attention
IMPLEMENTATIONS = TransformerSpecification.choices()['attention_implementation']
PLATFORMS = ('cpu', 'cuda', 'tpu')  # other platforms get the portable implementations

# Sequences of up to this many tokens are not cut into chunks: on a CPU, chunks make a model on
# frames of 14x14 patches no faster, and take more memory.
_LONGEST_FOR_EINSUM = 256
# For shorter sequences a GPU uses plain products, because cuDNN's tiles of 64 to 128 tokens would
# be mostly empty. On an H100 they take half of cuDNN's time at 17 tokens and twice it at 197; the
# border between is estimated.
_SHORTEST_FOR_CUDNN = 64
_CHUNK = 512  # queries

_recorders: list[Callable[[int, dict[str, str]], None]] = []


def dot_product_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: jax.Array | None = None,
    *,
    implementation: str = 'auto',
    dropout_rate: float = 0.0,
    dropout_key: jax.Array | None = None,
    knn_ratio: float = 1.0,
) -> jax.Array:
    """`softmax(q kᵀ / √d + bias) v` for every example and head.

    Args:
        query, key, value: [b n k d] in the type of the computation.
        bias: float32 [b k n n]; only `'einsum'` takes it.
        implementation: `'einsum'` holds all attention weights, [b k n n]. `'chunked'` holds the
            weights of some queries at a time and computes them again for the gradient, so that
            memory grows with n, not n². `'cudnn'` (GPU, 16-bit types) and `'pallas'` (GPU, TPU)
            are fused kernels without dropout and k-NN attention. `'auto'` calls `choose`.
        dropout_rate: dropout rate of the attention weights.
        dropout_key: random key of the dropout; None: no dropout.
        knn_ratio: share of the keys that each query attends to, see `hide_distant`.

    Returns:
        [b n k d].

    Raises:
        AssertionError: the shapes differ, or have no four axes.
        ValueError: a fused kernel is asked for dropout or k-NN attention, or any but `'einsum'` is
            given a bias.
    """
    chex.assert_rank((query, key, value), 4)
    chex.assert_equal_shape((query, key, value))
    drops = dropout_key is not None and dropout_rate > 0
    if implementation == 'auto':
        names = {
            platform: choose(
                platform,
                query.shape[1],
                query.shape[-1],
                query.dtype,
                drops=drops or knn_ratio < 1,
                has_bias=bias is not None,
            )
            for platform in (*PLATFORMS, 'other')
        }
    else:
        names = dict.fromkeys((*PLATFORMS, 'other'), implementation)
    for record in _recorders:
        record(query.shape[1], names)
    if set(names.values()) == {'einsum'}:  # the compiler partitions it by itself
        dropout_key = dropout_key if drops else None
        return _einsum(query, key, value, bias, dropout_key, dropout_rate, knn_ratio)
    if bias is not None:
        raise ValueError(f"attention by {implementation!r} takes no bias: use 'auto' or 'einsum'")
    if drops and implementation in FUSED:
        raise ValueError(f'attention by {implementation!r} has no dropout')
    if knn_ratio < 1 and implementation in FUSED:
        raise ValueError(f'attention by {implementation!r} takes no knn_ratio={knn_ratio}')
    keys = ()
    if drops:
        keys = (jax.random.split(dropout_key, (query.shape[0], query.shape[2])),)
    forms = {
        platform: _form(name, platform, dropout_rate, knn_ratio) for platform, name in names.items()
    }
    default = forms.pop('other')
    attend = functools.partial(lax.platform_dependent, default=default, **forms)
    return on_each_device(attend, query, key, value, *keys, head_axes=(2, 2, 2, *(1 for _ in keys)))


def choose(
    platform: str,
    num_tokens: int,
    head_dim: int,
    dtype: DTypeLike,
    *,
    drops: bool = False,
    has_bias: bool = False,
) -> str:
    """The implementation that `'auto'` means in a program compiled for one of `PLATFORMS`.

    Args:
        platform: the platform.
        num_tokens, head_dim, dtype: shape and type of queries, keys and values.
        drops: whether attention weights are dropped, at random or because they are small, which no
            fused kernel can do.
        has_bias: whether relative positions are added to the logits.
    """
    if has_bias:
        return 'einsum'
    is_fused = platform == 'cuda' and num_tokens >= _SHORTEST_FOR_CUDNN and not drops
    if is_fused and has_cudnn(head_dim, dtype):
        return 'cudnn'
    if num_tokens <= _LONGEST_FOR_EINSUM:
        return 'einsum'
    return 'pallas' if platform == 'tpu' and not drops else 'chunked'


@contextlib.contextmanager
def record_choices(platform: str) -> Iterator[dict[int, str]]:
    """While programs are traced, collects their implementations on a platform by token count."""
    taken = {}

    def record(num_tokens: int, names: dict[str, str]):
        taken[num_tokens] = names.get(platform, names['other'])

    _recorders.append(record)
    try:
        yield taken
    finally:
        _recorders.remove(record)


@contextlib.contextmanager
def log_choices(platform: str, what: str) -> Iterator[None]:
    """Logs in one line which implementations a program uses, if one is traced meanwhile."""
    with record_choices(platform) as taken:
        yield
    if taken:
        _log.info('Attention of the %s on %s: %s', what, platform, describe_choices(taken))


def describe_choices(taken: dict[int, str]) -> str:
    """Writes a result of `record_choices` as text: `'cudnn for 197 tokens, einsum for 17'`."""
    lengths = {name: [n for n in sorted(taken) if taken[n] == name] for name in taken.values()}
    return ', '.join(
        f'{name} for {" and ".join(map(str, numbers))} tokens' for name, numbers in lengths.items()
    )


def _form(
    name: str, platform: str, dropout_rate: float, knn_ratio: float
) -> Callable[..., jax.Array]:
    if name == 'chunked':
        return _chunked_form(platform == 'cpu', dropout_rate, knn_ratio)
    if name == 'pallas':
        return gpu_attention if platform == 'cuda' else tpu_attention
    return {'einsum': _einsum, 'cudnn': cudnn_attention}[name]


@functools.cache  # one object, so that platforms with the same form share a branch
def _chunked_form(by_head: bool, dropout_rate: float, knn_ratio: float) -> Callable[..., jax.Array]:
    return functools.partial(
        _chunked, by_head=by_head, dropout_rate=dropout_rate, knn_ratio=knn_ratio
    )


def attention_weights(
    query: jax.Array, key: jax.Array, bias: jax.Array | None = None, knn_ratio: float = 1.0
) -> jax.Array:
    """`softmax(q kᵀ / √d + bias)` of the largest logits of each query, float32 [b k q n]."""
    # With batch and heads in front, XLA's matrix products on a CPU take half the time.
    query, key = _scaled(query).swapaxes(1, 2), key.swapaxes(1, 2)
    scores = _float32_product(query, key.swapaxes(2, 3))
    return jax.nn.softmax(hide_distant(scores if bias is None else scores + bias, knn_ratio))


def _einsum(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: jax.Array | None = None,
    dropout_key: jax.Array | None = None,
    dropout_rate: float = 0.0,
    knn_ratio: float = 1.0,
) -> jax.Array:
    weights = attention_weights(query, key, bias, knn_ratio)
    if dropout_key is not None:
        weights = _dropout(dropout_key, weights, dropout_rate)
    return jnp.matmul(weights.astype(value.dtype), value.swapaxes(1, 2)).swapaxes(1, 2)


@jax.custom_vjp
def _float32_product(a: jax.Array, b: jax.Array) -> jax.Array:
    """`a b` in float32; its gradients are products in the type of a and b, as in fused kernels.

    JAX's own gradients multiply in float32, which in a 16-bit model is several times slower.
    """
    return jnp.matmul(a, b, preferred_element_type=jnp.float32)


def _float32_product_forward(a: jax.Array, b: jax.Array) -> tuple[jax.Array, tuple]:
    return _float32_product(a, b), (a, b)


def _float32_product_backward(kept: tuple[jax.Array, jax.Array], grad: jax.Array) -> tuple:
    a, b = kept
    grad = grad.astype(a.dtype)
    return jnp.matmul(grad, b.swapaxes(-1, -2)), jnp.matmul(a.swapaxes(-1, -2), grad)


_float32_product.defvjp(_float32_product_forward, _float32_product_backward)


def _scaled(query: jax.Array) -> jax.Array:
    return query * query.shape[-1] ** -0.5


def _dropout(key: jax.Array, weights: jax.Array, rate: float) -> jax.Array:
    return jnp.where(jax.random.bernoulli(key, 1 - rate, weights.shape), weights / (1 - rate), 0)


def _chunked(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    dropout_keys: jax.Array | None = None,
    *,
    by_head: bool,
    dropout_rate: float,
    knn_ratio: float,
) -> jax.Array:
    """See `dot_product_attention`.

    Args:
        query, key, value: [b n k d].
        dropout_keys: [b k], a random key for every head, or None.
        by_head: computes one head after another, which is fastest on a CPU, because a head fits
            its cache. Other devices are faster with all heads at once.
        dropout_rate: dropout rate of the attention weights.
        knn_ratio: share of the keys that each query attends to.

    Source: Self-attention Does Not Need O(n²) Memory (arXiv 2112.05682), chunks of queries only.
    """
    batch, length, heads, head_dim = query.shape
    num_chunks = -(-length // _CHUNK)
    chunk = -(-length // num_chunks)

    def one_head(head):
        query, key, value, dropout_key = head

        @jax.checkpoint  # the gradient computes the weights again instead of keeping them
        def one_chunk(part):
            index, query = part
            scores = hide_distant(_float32_product(query, key.T), knn_ratio)
            weights = jnp.exp(scores - lax.stop_gradient(scores.max(-1, keepdims=True)))
            total = weights.sum(-1, keepdims=True)
            if dropout_key is not None:
                weights = _dropout(jax.random.fold_in(dropout_key, index), weights, dropout_rate)
            mixed = _float32_product(weights.astype(value.dtype), value)
            return (mixed / total).astype(value.dtype)

        padded = jnp.pad(query, ((0, num_chunks * chunk - length), (0, 0)))
        parts = (jnp.arange(num_chunks), padded.reshape(num_chunks, chunk, head_dim))
        return lax.map(one_chunk, parts).reshape(-1, head_dim)[:length]

    def rows(x: jax.Array) -> jax.Array:
        return x.swapaxes(1, 2).reshape(batch * heads, length, head_dim)

    if dropout_keys is not None:
        dropout_keys = dropout_keys.reshape(-1)
    over_heads = functools.partial(lax.map, one_head) if by_head else jax.vmap(one_head)
    mixed = over_heads((rows(_scaled(query)), rows(key), rows(value), dropout_keys))
    return mixed.reshape(batch, heads, length, head_dim).swapaxes(1, 2)
