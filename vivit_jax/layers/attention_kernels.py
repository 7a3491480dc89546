"""Softmax attention in several implementations with equal results.

Queries, keys and values are [b n k d]: batch, tokens, heads, channels of a head. The softmax is
float32 in all of them.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec
from jax.typing import DTypeLike

from vivit_jax.parallel.mesh import BATCH_AXES, TENSOR_AXIS

FUSED = ('cudnn', 'pallas')  # kernels that leave no room for dropout
IMPLEMENTATIONS = ('auto', 'einsum', 'chunked', *FUSED)

# Up to here all weights of a sequence are held at once: a model on frames of 14x14 patches is no
# faster in chunks on a CPU, and needs more memory.
_LONGEST_FOR_EINSUM = 256
_CHUNK = 512  # queries
_TPU_LANES = 128  # the TPU kernel's blocks are multiples of it
_LONGEST_TPU_BLOCK = 640  # the gradient of longer ones overflows the vector memory of a v4


def dot_product_attention(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: jax.Array | None = None,
    *,
    implementation: str = 'auto',
    dropout_rate: float = 0.0,
    dropout_key: jax.Array | None = None,
) -> jax.Array:
    """`softmax(q kᵀ / √d + bias) v` for every example and head.

    Args:
        query, key, value: [b n k d] in the type of the computation.
        bias: float32 [b k n n]; only `'einsum'` takes it.
        implementation: `'einsum'` holds all weights, [b k n n]. `'chunked'` holds those of some
            queries at a time and computes them again for the gradient, so that memory grows with
            n, not n². `'cudnn'` (GPU, 16-bit types) and `'pallas'` (TPU) are fused kernels without
            dropout. `'auto'` picks one by device, type and length.
        dropout_rate: of the weights.
        dropout_key: None: no dropout.

    Returns:
        [b n k d].

    Raises:
        ValueError: dropout is asked of a fused kernel, or a bias is given to a kernel without.
    """
    drops = dropout_key is not None and dropout_rate > 0
    if implementation == 'auto':
        implementation = 'einsum'
        if bias is None:
            implementation = _choose(query.shape[1], query.shape[-1], query.dtype, drops)
    if implementation == 'einsum':
        weights = attention_weights(query, key, bias)
        if drops:
            weights = _dropout(dropout_key, weights, dropout_rate)
        return jnp.matmul(weights.astype(value.dtype), value.swapaxes(1, 2)).swapaxes(1, 2)
    if bias is not None:
        raise ValueError(f"attention by {implementation!r} takes no bias: use 'auto' or 'einsum'")
    if implementation == 'chunked':
        shape = (query.shape[0], query.shape[2])
        keys = (jax.random.split(dropout_key, shape),) if drops else ()
        chunked = functools.partial(_chunked, dropout_rate=dropout_rate)
        return _on_each_device(chunked, query, key, value, *keys)
    if drops:
        raise ValueError(f'attention by {implementation!r} has no dropout')
    if implementation == 'cudnn':
        return jax.nn.dot_product_attention(query, key, value, implementation='cudnn')
    return _on_each_device(_pallas, query, key, value)


def attention_weights(query: jax.Array, key: jax.Array, bias: jax.Array | None = None) -> jax.Array:
    """`softmax(q kᵀ / √d + bias)`, float32 [b k q n]."""
    # With batch and heads in front, XLA's matrix products on a CPU take half the time.
    query, key = _scaled(query).swapaxes(1, 2), key.swapaxes(1, 2)
    scores = jnp.matmul(query, key.swapaxes(2, 3), preferred_element_type=jnp.float32)
    return jax.nn.softmax(scores if bias is None else scores + bias)


def _choose(num_tokens: int, head_dim: int, dtype: DTypeLike, drops: bool) -> str:
    backend = jax.default_backend()
    if backend == 'gpu' and not drops and _has_cudnn(head_dim, jnp.dtype(dtype)):
        return 'cudnn'
    if num_tokens <= _LONGEST_FOR_EINSUM:
        return 'einsum'
    return 'pallas' if backend == 'tpu' and not drops else 'chunked'


@functools.cache
def _has_cudnn(head_dim: int, dtype: jnp.dtype) -> bool:
    """Whether cuDNN is there, and this GPU, type and size are among what it takes."""
    x = jax.ShapeDtypeStruct((1, 128, 1, head_dim), dtype)
    attention = functools.partial(jax.nn.dot_product_attention, implementation='cudnn')
    try:
        jax.eval_shape(attention, x, x, x)
    except (RuntimeError, NotImplementedError, ValueError):
        return False
    # The one thing that JAX leaves to the kernel, which fails: it needs an Ampere or later.
    return int(jax.local_devices()[0].compute_capability.split('.')[0]) >= 8


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
    dropout_rate: float,
) -> jax.Array:
    """See `dot_product_attention`; `dropout_keys` [b k], one for every head.

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
            scores = jnp.matmul(query, key.T, preferred_element_type=jnp.float32)
            weights = jnp.exp(scores - lax.stop_gradient(scores.max(-1, keepdims=True)))
            total = weights.sum(-1, keepdims=True)
            if dropout_key is not None:
                weights = _dropout(jax.random.fold_in(dropout_key, index), weights, dropout_rate)
            mixed = jnp.matmul(
                weights.astype(value.dtype), value, preferred_element_type=jnp.float32
            )
            return (mixed / total).astype(value.dtype)

        padded = jnp.pad(query, ((0, num_chunks * chunk - length), (0, 0)))
        parts = (jnp.arange(num_chunks), padded.reshape(num_chunks, chunk, head_dim))
        return lax.map(one_chunk, parts).reshape(-1, head_dim)[:length]

    def rows(x: jax.Array) -> jax.Array:
        return x.swapaxes(1, 2).reshape(batch * heads, length, head_dim)

    if dropout_keys is not None:
        dropout_keys = dropout_keys.reshape(-1)
    # A CPU is fastest with what fits its cache, other devices with much at once.
    over_heads = functools.partial(lax.map, one_head)
    if jax.default_backend() != 'cpu':
        over_heads = jax.vmap(one_head)
    mixed = over_heads((rows(_scaled(query)), rows(key), rows(value), dropout_keys))
    return mixed.reshape(batch, heads, length, head_dim).swapaxes(1, 2)


def _pallas(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """JAX's TPU kernel; tokens are padded to whole blocks, which as a segment of their own are
    never attended to, and channels beyond one block to whole blocks.
    """
    from jax.experimental.pallas.ops.tpu import flash_attention as tpu

    batch, length, _, head_dim = query.shape
    padding = -length % _TPU_LANES
    channel_padding = -head_dim % _TPU_LANES if head_dim > _TPU_LANES else 0
    padded_length = length + padding
    block = max(
        size
        for size in range(_TPU_LANES, _LONGEST_TPU_BLOCK + 1, _TPU_LANES)
        if padded_length % size == 0
    )
    blocks = {field.name: block for field in dataclasses.fields(tpu.BlockSizes)}
    query, key, value = (
        jnp.pad(x.swapaxes(1, 2), ((0, 0), (0, 0), (0, padding), (0, channel_padding)))
        for x in (query, key, value)
    )
    segment = jnp.broadcast_to(jnp.arange(padded_length) < length, (batch, padded_length))
    segments = tpu.SegmentIds(*2 * (segment.astype(jnp.int32),))
    mixed = tpu.flash_attention(
        query,
        key,
        value,
        segment_ids=segments,
        sm_scale=head_dim**-0.5,
        block_sizes=tpu.BlockSizes(**{**blocks, 'block_b': 1}),
    )
    return mixed[:, :, :length, :head_dim].swapaxes(1, 2)


def _on_each_device(attention: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    """Splits batch and heads of `arrays`, [b n k d] or [b k], over the mesh in use.

    The compiler can partition neither a fused kernel nor a loop over heads by itself.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return attention(*arrays)
    batch, _, heads, _ = arrays[0].shape
    rows = math.prod(mesh.shape[axis] for axis in BATCH_AXES)
    batch_axes = None if batch % rows else BATCH_AXES
    head_axis = None if heads % mesh.shape[TENSOR_AXIS] else TENSOR_AXIS
    specs = {4: PartitionSpec(batch_axes, None, head_axis), 2: PartitionSpec(batch_axes, head_axis)}
    return jax.shard_map(
        attention,
        in_specs=tuple(specs[x.ndim] for x in arrays),
        out_specs=specs[4],
        check_vma=False,  # loops and kernels inside do not say what they vary over
    )(*arrays)
