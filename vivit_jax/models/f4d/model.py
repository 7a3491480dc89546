"""F4D (Al-Saad et al. 2024) and V4D (Zhang et al. 2020): residual networks over units of a video.

All activations are [b u t h w c]: a video is u units of t frames.
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange
from jax.typing import DTypeLike

from vivit_jax.layers.convolution import batch_norm, convolution
from vivit_jax.layers.convolution_kernels import convolve, max_pool
from vivit_jax.layers.stack import REMAT_POLICIES
from vivit_jax.layers.tokens import ModelOutput, classify, find_grid
from vivit_jax.models.f4d import specification
from vivit_jax.models.f4d.attention import attend

# A norm's scale starts at one, also the last one before an addition: a block over units ends in a
# ReLU, which would pass no gradient back to a scale of zero.
_conv = functools.partial(convolution, use_bias=False, kernel_init=nn.initializers.he_normal())


class UnitNetwork(nn.Module):
    """I3D-S, a ResNet with some temporal convolutions, on each unit; blocks see all units.

    The logits are the mean over the units. No parameter depends on the number of units.

    Source: V4D (arXiv 2002.07442), section 3 and table 1.
    """

    spec: specification.UnitNetwork

    def make_block(self, name: str) -> nn.Module:
        """A residual block over units, [b u t h w c] to [b u t h w c]."""
        raise NotImplementedError

    @nn.compact
    def __call__(
        self, clip: jax.Array, train: bool = False, capture_attention: bool = False
    ) -> ModelOutput:
        """Classifies clips.

        Args:
            clip: float [b u t h w c] in the range of the preprocessing; [b t h w c] is one unit.
            train: switches dropout and the statistics of batches on; needs the rng `dropout` and a
                mutable collection `batch_stats`.
            capture_attention: without effect, because the maps of attention are no weights that
                sum to one.

        Raises:
            ValueError: the clip is not what the model takes, see `find_grid`.
        """
        spec = self.spec
        find_grid(spec, clip)
        norm = functools.partial(batch_norm, train=train, dtype=spec.dtype)

        def run(module: nn.Module, x: jax.Array) -> jax.Array:
            return module(x, train=train)

        if spec.remat != 'none':
            run = nn.remat(run, policy=REMAT_POLICIES[spec.remat])
        clip = (clip - jnp.asarray(spec.pixel_mean, clip.dtype)).astype(spec.dtype)
        x = clip if clip.ndim == 6 else clip[:, None]
        x = _conv(spec.width, (1, 7, 7), strides=(1, 2, 2), dtype=spec.dtype, name='conv1')(x)
        x = nn.relu(norm(name='norm1')(x))
        if 'conv1' in spec.blocks:
            x = run(self.make_block('conv1_block'), x)
        frames = x.reshape(-1, *x.shape[3:])
        frames = max_pool(frames, (3, 3), (2, 2))
        x = frames.reshape(*x.shape[:3], *frames.shape[1:])
        for stage, length in enumerate(spec.temporal_kernels):
            for index, (name, has_block) in enumerate(spec.places(stage)):
                stride = 2 if stage and not index else 1
                x = run(Bottleneck(spec.width << stage, length, stride, spec.dtype, name=name), x)
                if has_block:
                    x = run(self.make_block(f'{name}_block'), x)
        features = x.mean(axis=(2, 3, 4), dtype=jnp.float32)
        features = nn.Dropout(spec.dropout_rate, deterministic=not train)(features)
        # The mean of logits over units, because a classifier is linear.
        return classify(features.mean(axis=1), spec.num_classes)


class Bottleneck(nn.Module):
    """`ReLU(S(x) + BN(Conv1(ReLU(BN(Conv1x3x3(ReLU(BN(Convtx1x1(x)))))))))`.

    S is the identity if the shape stays the same, else a 1x1x1 convolution and a norm.

    Attributes:
        channels: channels in the middle; the result has four times as many.
        length: frames that the first convolution sees.
        stride: spatial stride of the second convolution.
        dtype: type of the computation.
    """

    channels: int
    length: int
    stride: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        conv = functools.partial(_conv, dtype=self.dtype)
        norm = functools.partial(batch_norm, train=train, dtype=self.dtype)
        strides, outputs = (1, self.stride, self.stride), 4 * self.channels
        y = nn.relu(norm(name='norm1')(conv(self.channels, (self.length, 1, 1), name='conv1')(x)))
        y = conv(self.channels, (1, 3, 3), strides=strides, name='conv2')(y)
        y = nn.relu(norm(name='norm2')(y))
        y = norm(name='norm3')(conv(outputs, (1, 1, 1), name='conv3')(y))
        if x.shape != y.shape:
            x = conv(outputs, (1, 1, 1), strides=strides, name='shortcut')(x)
            x = norm(name='shortcut_norm')(x)
        return nn.relu(x + y)


class F4d(UnitNetwork):
    """The network with (3+1)D blocks, whose convolution over four axes is factorized."""

    spec: specification.F4d

    def make_block(self, name: str) -> nn.Module:
        return FactorizedBlock(self.spec, name=name)


class FactorizedBlock(nn.Module):
    """`x + Attention(Dropout(ReLU(BN(Conv_t(ReLU(BN(Conv_uhw(x))))))))`.

    Source: F4D (Al-Saad et al. 2024), section on the (3+1)D block.
    """

    spec: specification.F4d

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        spec = self.spec
        norm = functools.partial(batch_norm, train=train, dtype=spec.dtype)
        units, time, height, width = spec.block_kernel
        channels = x.shape[-1]
        conv = Convolution4d(
            spec.hidden_channels(channels), (units, 1, height, width), spec.dtype, name='unit_conv'
        )
        z = nn.relu(norm(name='unit_norm')(conv(x)))
        conv = Convolution4d(channels, (1, time, 1, 1), spec.dtype, name='time_conv')
        z = nn.relu(norm(name='time_norm')(conv(z)))
        z = nn.Dropout(spec.block_dropout_rate, deterministic=not train)(z)
        return x + attend(spec, z)


class V4d(UnitNetwork):
    """The network with full convolutions over four axes."""

    spec: specification.V4d

    def make_block(self, name: str) -> nn.Module:
        return FullBlock(self.spec, name=name)


class FullBlock(nn.Module):
    """`x + Conv_uthw(x)`.

    Source: V4D (arXiv 2002.07442), section 3.2; no norm and no activation, as in the public code.
    """

    spec: specification.V4d

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        kernel_size = self.spec.block_kernel
        return x + Convolution4d(x.shape[-1], kernel_size, self.spec.dtype, name='conv')(x)


class Convolution4d(nn.Module):
    """A convolution of [b u t h w c] over units, time and space, padded with zeros, without bias.

    XLA convolves at most three axes. Where a kernel sees single pixels of several units, height and
    width are one axis of the convolution. Otherwise, the channels of all units that a unit depends
    on are joined first.

    Attributes:
        features: channels of the result.
        kernel_size: (u, t, h, w), each odd.
        dtype: type of the computation.
    """

    features: int
    kernel_size: tuple[int, int, int, int]
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        _, units, _, height, width, channels = x.shape
        shape = (*self.kernel_size, channels, self.features)
        # All but the last axis are inputs.
        init = nn.initializers.he_normal(in_axis=range(len(shape) - 1))
        kernel = self.param('kernel', init, shape).astype(self.dtype)
        length = self.kernel_size[0]
        if length > 1 and self.kernel_size[2:] == (1, 1):
            x = _convolve(rearrange(x, 'b u t h w c -> b u t (h w) c'), kernel[:, :, 0])
            return rearrange(x, 'b u t (h w) c -> b u t h w c', h=height, w=width)
        around = length // 2
        x = jnp.pad(x, ((0, 0), (around, around), *4 * [(0, 0)]))
        x = jnp.concatenate([x[:, i : i + units] for i in range(length)], axis=-1)
        kernel = rearrange(kernel, 'u t h w c d -> t h w (u c) d')
        x = _convolve(rearrange(x, 'b u t h w c -> (b u) t h w c'), kernel)
        return rearrange(x, '(b u) t h w c -> b u t h w c', u=units)


def _convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A convolution over the three axes in the middle."""
    return convolve(
        x,
        kernel,
        (1, 1, 1),
        tuple((size // 2, size // 2) for size in kernel.shape[:3]),
        dimension_numbers=('NDHWC', 'DHWIO', 'NDHWC'),
        feature_group_count=1,
    )
