"""The attention modules of F4D's blocks, and two that the paper compares with.

A module maps activations [b u t h w c] to a map between 0 and 1 that broadcasts to them.

Source: F4D (Al-Saad et al. 2024), section on attention.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from vivit_jax.layers.convolution import convolution
from vivit_jax.layers.linear import Linear
from vivit_jax.models.f4d import specification

_HE = nn.initializers.he_normal()


def _average(key: jax.Array, shape: tuple[int, ...], dtype: DTypeLike) -> jax.Array:
    """Random weights that are not negative, and that sum to about one.

    The single channel after such a kernel is positive, since its input is. With weights of both
    signs, a ReLU could cut the whole channel off, and nothing before it would learn.
    """
    return jax.random.uniform(key, shape, dtype, maxval=2 / math.prod(shape[:-1]))


def attend(spec: specification.F4d, x: jax.Array) -> jax.Array:
    """Multiplies x [b u t h w c] by the maps of `spec.attention`; call it within a block.

    F4D's own modules also add their input: `x·map + x`.
    """
    channel_map = functools.partial(ChannelMap, spec.reduction)
    makers = {
        'ta': {'ta': TemporalMap},
        'ca': {'ca': channel_map},
        'sta': {'sta': SpatioTemporalMap},
        'se': {'se': functools.partial(channel_map, has_max=False)},
        'cbam': {'cbam_channel': channel_map, 'cbam_space': SpatialMap},
    }
    for attention in spec.attention:
        for name, make in makers[attention].items():
            scaled = x * make(dtype=spec.dtype, name=name)(x)
            x = scaled + x if attention in ('ta', 'ca', 'sta') else scaled
    return x


class TemporalMap(nn.Module):
    """`σ(c2(s) + c3(s))` of the frames of all units, with s the mean plus the maximum of a frame.

    c2 and c3 are convolutions of three frames with dilations of 2 and 3; the frames of the units
    follow one another.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, units, time = x.shape[:3]
        frames = x.mean(axis=(3, 4, 5)) + maximum(x, 3, 5)
        frames = _dilated(frames.reshape(batch, units * time, 1), (3,), 'conv', self.dtype)
        return nn.sigmoid(frames).reshape(batch, units, time, 1, 1, 1)


class ChannelMap(nn.Module):
    """`σ(f(mean) + f(max))` over the positions of a unit, `f(x) = W1 ReLU(W0 x)`.

    Source: CBAM (arXiv 1807.06521), section 3.1; without the maximum: Squeeze-and-Excitation
    Networks (arXiv 1709.01507), section 3.

    Attributes:
        reduction: how many times fewer channels the hidden layer has.
        has_max: whether the maximum counts.
        dtype: type of the computation.
    """

    reduction: int
    has_max: bool = True
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dense = functools.partial(Linear, use_bias=False, kernel_init=_HE, dtype=self.dtype)
        hidden = dense((x.shape[-1] // self.reduction,), name='dense_in')
        outer = dense(x.shape[-1:], name='dense_out')
        pooled = [x.mean(axis=(2, 3, 4))] + [maximum(x, 2, 4)] * self.has_max
        channels = nn.sigmoid(sum(outer(nn.relu(hidden(values))) for values in pooled))
        return jnp.expand_dims(channels, (2, 3, 4))


class SpatioTemporalMap(nn.Module):
    """`σ(e2(g) + e3(g))`, `g = ReLU(a2(m) + a3(m))`, with m the mean and maximum of the channels.

    a2 and a3 are 1x3x3 convolutions, e2 and e3 are 3x1x1 convolutions, with dilations of 2 and 3.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        pooled = _pool_channels(x)
        hidden = nn.relu(_dilated(pooled, (1, 3, 3), 'space_conv', self.dtype, _average))
        return nn.sigmoid(_dilated(hidden, (3, 1, 1), 'time_conv', self.dtype))


class SpatialMap(nn.Module):
    """`σ(Conv7x7(m))` of each frame, with m the mean and the maximum of the channels.

    Source: CBAM (arXiv 1807.06521), section 3.2.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        conv = convolution(
            1, (1, 7, 7), use_bias=False, kernel_init=_HE, dtype=self.dtype, name='conv'
        )
        return nn.sigmoid(conv(_pool_channels(x)))


def _pool_channels(x: jax.Array) -> jax.Array:
    return jnp.stack([x.mean(axis=-1), maximum(x, x.ndim - 1, x.ndim - 1)], axis=-1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def maximum(x: jax.Array, first: int, last: int) -> jax.Array:
    """The maximum over the axes `first` to `last`; its gradient goes to one of the largest values.

    JAX's own gradient divides by the number of values that equal the maximum. If XLA computes the
    values a second time for the gradient, and rounds them differently, that number is zero, and the
    gradient is no number.
    """
    return _maximum_forward(x, first, last)[0]


def _maximum_forward(x: jax.Array, first: int, last: int) -> tuple[jax.Array, tuple]:
    flat = x.reshape(*x.shape[:first], -1, *x.shape[last + 1 :])
    index = flat.argmax(axis=first, keepdims=True)
    largest = jnp.take_along_axis(flat, index, axis=first).squeeze(first)
    return largest, (index, x)


def _maximum_backward(first: int, last: int, kept: tuple, gradient: jax.Array) -> tuple:
    index, x = kept
    shape = (*x.shape[:first], -1, *x.shape[last + 1 :])
    places = lax.broadcasted_iota(index.dtype, x.reshape(shape).shape, first)
    gradient = jnp.where(places == index, jnp.expand_dims(gradient, first), 0)
    return (gradient.reshape(x.shape),)


maximum.defvjp(_maximum_forward, _maximum_backward)


def _dilated(
    x: jax.Array,
    kernel_size: tuple[int, ...],
    name: str,
    dtype: DTypeLike,
    init: nn.initializers.Initializer = _HE,
) -> jax.Array:
    """The sum of two convolutions to one channel, with dilations of 2 and 3."""
    return sum(
        convolution(
            1, kernel_size, dilation=rate, kernel_init=init, dtype=dtype, name=f'{name}{rate}'
        )(x)
        for rate in (2, 3)
    )
