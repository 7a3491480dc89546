"""Convolutions and pooling in forms that are fast on every kind of device.

On CPUs, XLA's convolutions along three axes, its depthwise convolutions and the gradient of its max
pooling are many times slower than the forms here, which are made of shifted inputs, matrix products
and convolutions of frames.
"""

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vivit_jax.layers.linear import project
from vivit_jax.parallel.mesh import BATCH_AXES, constrain


def convolve(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], padding: tuple, **keywords
) -> jax.Array:
    """`lax.conv_general_dilated` of [b ... c] and a kernel [... c/groups c'], for `nn.Conv`."""
    # Where devices split the kernel, XLA would split the channels of the activations too, and move
    # the activations between devices. They are larger than the kernel.
    x, kernel = constrain(x, BATCH_AXES), constrain(kernel)
    return constrain(_choose_form(x, kernel, strides, padding, keywords), BATCH_AXES)


def _choose_form(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, ...], padding: tuple, keywords: dict
) -> jax.Array:
    native = functools.partial(
        lax.conv_general_dilated, window_strides=strides, padding=padding, **keywords
    )
    if math.prod(kernel.shape[:-2]) == 1 and keywords['feature_group_count'] == 1:
        steps = (slice(None, None, stride) for stride in strides)
        return project(x[:, *steps], kernel.reshape(kernel.shape[-2:]))
    dilations = [keywords.get(name) or (1,) for name in ('lhs_dilation', 'rhs_dilation')]
    if max(map(max, dilations)) > 1:
        return native(x, kernel)
    if kernel.shape[-2] == 1 and kernel.shape[-1] == x.shape[-1] and max(strides) == 1:
        on_cpu = functools.partial(_shifted_products, padding=padding)
    elif kernel.ndim == 5 and keywords['feature_group_count'] == 1:
        on_cpu = functools.partial(_of_frames, strides=strides, padding=padding)
        native = functools.partial(_of_planes, native, strides=strides, padding=padding)
    else:
        return native(x, kernel)
    return _by_platform(native, on_cpu, x, kernel)


def max_pool(x: jax.Array, window: tuple[int, ...], strides: tuple[int, ...]) -> jax.Array:
    """The maximum in windows of [b ... c], padded by (k - 1) / 2 places on each side.

    If places of a window are equal, devices differ in the place that gets the gradient.
    """
    padding = [(size // 2, size // 2) for size in window]
    native = functools.partial(nn.max_pool, window_shape=window, strides=strides, padding=padding)
    return _by_platform(native, functools.partial(_shifted_maxima, window, strides), x)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _by_platform(native: Callable, on_cpu: Callable, *inputs: jax.Array) -> jax.Array:
    return lax.platform_dependent(*inputs, cpu=on_cpu, default=native)


def _by_platform_forward(native: Callable, on_cpu: Callable, *inputs: jax.Array) -> tuple:
    return _by_platform(native, on_cpu, *inputs), inputs


def _by_platform_backward(native: Callable, on_cpu: Callable, kept: tuple, gradient: jax.Array):
    # Only the inputs are kept, because the intermediate arrays of the forms are larger.
    def pull(form: Callable) -> Callable:
        return lambda gradient, *inputs: jax.vjp(form, *inputs)[1](gradient)

    return lax.platform_dependent(gradient, *kept, cpu=pull(on_cpu), default=pull(native))


_by_platform.defvjp(_by_platform_forward, _by_platform_backward)


def _shifted_maxima(window: tuple, strides: tuple, x: jax.Array) -> jax.Array:
    """`max_pool`, along one axis after the other."""
    for axis, (size, stride) in enumerate(zip(window, strides, strict=True), 1):
        stop = x.shape[axis] - (x.shape[axis] - 1) % stride
        widths = [(size // 2 if i == axis else 0,) * 2 for i in range(x.ndim)]
        padded = jnp.pad(x, widths, constant_values=-jnp.inf)
        shifted = [lax.slice_in_dim(padded, i, i + stop, stride, axis=axis) for i in range(size)]
        x = functools.reduce(jnp.maximum, shifted)
    return x


def _shifted_products(x: jax.Array, kernel: jax.Array, padding: tuple) -> jax.Array:
    """A depthwise convolution without strides: the sum of shifted inputs times their weights."""
    return _depthwise(jnp.pad(x, ((0, 0), *padding, (0, 0))), kernel)


@jax.custom_vjp
def _depthwise(x: jax.Array, kernel: jax.Array) -> jax.Array:
    length, *places = kernel.shape[:-2]
    sizes = [size - taps + 1 for size, taps in zip(x.shape[1:], (length, *places), strict=False)]

    def add(total: jax.Array, tap: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        index, weights = tap
        shifted = lax.dynamic_slice_in_dim(x, index, sizes[0], axis=1)
        for place in np.ndindex(*places):
            window = (slice(i, i + n) for i, n in zip(place, sizes[1:], strict=True))
            total = total + shifted[:, :, *window] * weights[place][0]
        return total, None

    # The sum is float32, as in XLA. The loop covers the first axis only: a loop over all axes
    # would run more slowly, and no loop at all would compile for long.
    start = jnp.zeros((x.shape[0], *sizes, x.shape[-1]), jnp.float32)
    total, _ = lax.scan(add, start, (jnp.arange(length), kernel.astype(jnp.float32)))
    return total.astype(x.dtype)


def _depthwise_forward(x: jax.Array, kernel: jax.Array) -> tuple:
    return _depthwise(x, kernel), (x, kernel)


def _depthwise_backward(kept: tuple, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = kept
    places = kernel.shape[:-2]

    def of_weights(_: None, place: jax.Array) -> tuple[None, jax.Array]:
        shifted = lax.dynamic_slice(x, (0, *place, 0), gradient.shape)
        product = shifted.astype(jnp.float32) * gradient
        return None, product.sum(axis=range(gradient.ndim - 1))

    _, of_kernel = lax.scan(of_weights, None, jnp.asarray(list(np.ndindex(places))))
    around = [(size - 1, size - 1) for size in places]
    of_x = _depthwise(
        jnp.pad(gradient, ((0, 0), *around, (0, 0))), jnp.flip(kernel, range(len(places)))
    )
    return of_x, of_kernel.reshape(kernel.shape).astype(kernel.dtype)


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def _of_planes(
    native: Callable, x: jax.Array, kernel: jax.Array, strides: tuple, padding: tuple
) -> jax.Array:
    """A convolution of [b t h w c] along two axes, where the kernel has no other extent.

    For GPUs XLA keeps the channels last in convolutions along two axes, and puts them first, by a
    transpose before and one after, in those along three.
    """
    (b, t, h, w, c), (length, *sizes) = x.shape, kernel.shape[:3]
    convolve_planes = functools.partial(
        lax.conv_general_dilated, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
    )
    if length == strides[0] == 1 and not any(padding[0]):
        frames = x.reshape(b * t, h, w, c)
        frames = convolve_planes(frames, kernel[0], strides[1:], padding[1:])
        return frames.reshape(b, t, *frames.shape[1:])
    if max(*sizes, *strides[1:]) == 1 and not any(map(any, padding[1:])):
        lines = x.reshape(b, t, h * w, c)
        lines = convolve_planes(lines, kernel[:, 0], (strides[0], 1), (padding[0], (0, 0)))
        return lines.reshape(b, -1, h, w, lines.shape[-1])
    return native(x, kernel)


def _of_frames(x: jax.Array, kernel: jax.Array, strides: tuple, padding: tuple) -> jax.Array:
    """A convolution of [b t h w c] as a convolution of frames.

    The channels of all frames that an output frame depends on are joined into one frame first.
    """
    length, *sizes, channels, features = kernel.shape
    x = jnp.pad(x, ((0, 0), padding[0], *3 * [(0, 0)]))
    time = (x.shape[1] - length) // strides[0] + 1
    stop = (time - 1) * strides[0] + 1
    x = jnp.concatenate([x[:, i : i + stop : strides[0]] for i in range(length)], axis=-1)
    kernel = jnp.moveaxis(kernel, 0, 2).reshape(*sizes, length * channels, features)
    if max(*sizes, *strides[1:]) == 1:  # XLA's gradient of such a convolution is slow
        return project(x, kernel[0, 0])
    frames = lax.conv_general_dilated(
        x.reshape(-1, *x.shape[2:]),
        kernel,
        strides[1:],
        padding[1:],
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )
    return frames.reshape(-1, time, *frames.shape[1:])
