"""Attention by fused kernels of other libraries: cuDNN and Pallas on GPUs, Pallas on TPUs.

Queries, keys and values are [b n k d]. Pallas's kernels take sequences of whole blocks only: the
functions here pad to a length that the kernel takes, hide the padding from the softmax, and cut the
padding off again, so that the results equal the other forms of `dot_product_attention`.
"""

import dataclasses
import functools
from collections.abc import Callable
from unittest import mock

import jax
import jax.numpy as jnp
from jax._src.cudnn import fused_attention_stablehlo as cudnn
from jax.typing import DTypeLike

_TPU_LANES = 128  # the TPU kernel's blocks are multiples of this many tokens
_LONGEST_TPU_BLOCK = 640  # tokens; longer blocks overflow the vector memory of a v4 in the gradient
_GPU_BLOCKS = (32, 64, 128)  # tokens; 32 is the smallest block of the gradient


@jax.custom_vjp
def cudnn_attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Attention by cuDNN (Ampere or later, 16-bit types), for any number of tokens.

    Raises:
        RuntimeError: cuDNN is not installed.
        NotImplementedError, ValueError: cuDNN does not take the type or the width of the heads.
    """
    return jax.nn.dot_product_attention(query, key, value, implementation='cudnn')


def _cudnn_forward(*inputs: jax.Array) -> tuple[jax.Array, Callable]:
    # cuDNN has no gradient for odd lengths if there is a bias. JAX refuses odd lengths without a
    # bias too: it takes the empty array that it passes as no bias for a bias.
    check = cudnn.check_is_flash_attention

    def check_without_bias(query, key, value, layout, version, has_bias, *others, **named):
        check(query, key, value, layout, version, False, *others, **named)

    with mock.patch.object(cudnn, 'check_is_flash_attention', check_without_bias):
        return jax.vjp(cudnn_attention.fun, *inputs)


cudnn_attention.defvjp(_cudnn_forward, lambda gradient_of, grad: gradient_of(grad))


def has_cudnn(head_dim: int, dtype: DTypeLike) -> bool:
    """Whether cuDNN takes heads of this width and type.

    In a process without a GPU, as when a program is exported, the future GPU is assumed to be new
    enough; cuDNN must be installed.
    """
    x = jax.ShapeDtypeStruct((1, 128, 1, head_dim), dtype)
    attention = functools.partial(jax.nn.dot_product_attention, implementation='cudnn')
    try:
        jax.eval_shape(attention, x, x, x)
    except (RuntimeError, NotImplementedError, ValueError):
        return False
    # JAX leaves the generation of the GPU to the kernel, which fails before Ampere.
    capability = getattr(jax.local_devices()[0], 'compute_capability', '8.0')
    return int(capability.split('.')[0]) >= 8


def tpu_attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """JAX's Pallas kernel for TPUs.

    Tokens are padded to whole blocks. The padding is a segment of its own, to which real tokens
    never attend. More than 128 channels are padded to a multiple of 128 too.
    """
    from jax.experimental.pallas.ops.tpu import flash_attention as tpu

    _, length, _, head_dim = query.shape
    padding = -length % _TPU_LANES
    channel_padding = -head_dim % _TPU_LANES if head_dim > _TPU_LANES else 0
    block = max(
        size
        for size in range(_TPU_LANES, _LONGEST_TPU_BLOCK + 1, _TPU_LANES)
        if (length + padding) % size == 0
    )
    blocks = {field.name: block for field in dataclasses.fields(tpu.BlockSizes)}
    query, key, value = (
        _pad(_pad(x.swapaxes(1, 2), axis=2, size=padding), axis=3, size=channel_padding)
        for x in (query, key, value)
    )
    segments = _segments(len(query), length, padding)
    mixed = tpu.flash_attention(
        query,
        key,
        value,
        segment_ids=tpu.SegmentIds(segments, segments),
        sm_scale=head_dim**-0.5,
        block_sizes=tpu.BlockSizes(**{**blocks, 'block_b': 1}),
    )
    return mixed[:, :, :length, :head_dim].swapaxes(1, 2)


def gpu_attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """JAX's Pallas kernel for GPUs, compiled by Triton; tokens are padded to whole blocks."""
    from jax.experimental.pallas.ops.gpu import attention as gpu

    batch, length, _, head_dim = query.shape
    block = next((size for size in _GPU_BLOCKS if size >= length), _GPU_BLOCKS[-1])
    padding = -length % block
    mixed = gpu.mha(
        *(_pad(x, axis=1, size=padding) for x in (query, key, value)),
        _segments(batch, length, padding),
        sm_scale=head_dim**-0.5,
    )
    return mixed[:, :length]


def _pad(x: jax.Array, axis: int, size: int) -> jax.Array:
    widths = [(0, 0)] * x.ndim
    widths[axis] = (0, size)
    return jnp.pad(x, widths)


def _segments(batch: int, length: int, padding: int) -> jax.Array:
    """1 for tokens and 0 for the padding behind them, int32 [b n]."""
    segment = jnp.arange(length + padding) < length
    return jnp.broadcast_to(segment, (batch, length + padding)).astype(jnp.int32)
