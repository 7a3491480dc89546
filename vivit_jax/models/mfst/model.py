"""MFST: stages of convolutions, k-NN attention within frames, and attention over time.

Source: Yujun Ma, Deep learning for action recognition in videos (PhD thesis, Massey University,
2024), chapter 2; below, "Ma 2024". Widths, which Ma 2024 leaves open, follow De+Recouple (arXiv
2112.09129), which has the convolutions of I3D (arXiv 1705.07750).
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange, reduce

from vivit_jax.layers.convolution import batch_norm, convolution
from vivit_jax.layers.convolution_kernels import max_pool
from vivit_jax.layers.grid import sincos_sequence
from vivit_jax.layers.linear import Linear
from vivit_jax.layers.stack import rematerialize
from vivit_jax.layers.tokens import ModelOutput, classify, find_grid
from vivit_jax.layers.transformer import Encoder, EncoderBlock, SelfAttention, layer_norm
from vivit_jax.models.mfst import specification

_WINDOW = (1, 3, 3)  # of all poolings


class Mfst(nn.Module):
    """A stem, stages, a LayerNorm, the mean over time and space."""

    spec: specification.Mfst

    @nn.compact
    def __call__(
        self, clip: jax.Array, train: bool = False, capture_attention: bool = False
    ) -> ModelOutput:
        """Classifies clips.

        Args:
            clip: float [b t h w c] in the range of the preprocessing, usually [-1, 1].
            train: switches dropout, stochastic depth and the statistics of batches on; needs the
                rng `dropout` and a mutable collection `batch_stats`.
            capture_attention: returns all attention weights, which must fit into memory, under
                names such as `stage_0/SpatialTransformer` and `stage_0/TemporalTransformer/2`, at
                the scale 2.

        Raises:
            ValueError: the clip is not what the model takes, see `find_grid`.
        """
        spec, captured = self.spec, {}
        find_grid(spec, clip)
        x = Stem(spec, name='stem')(clip.astype(spec.dtype), train=train)
        for index in range(spec.num_stages):
            stage = Stage(spec, index, name=f'stage_{index}')
            x, weights = stage(x, train=train, capture_attention=capture_attention)
            captured |= {f'{stage.name}/{name}': values for name, values in weights.items()}
        x = layer_norm(spec, 'encoder_norm')(x)
        return classify(x.mean(axis=(1, 2, 3)), spec.num_classes, captured)


class ConvBlock(nn.Module):
    """`ReLU(BN(Conv(x)))`, or without ReLU; the convolution has no bias.

    Attributes:
        spec: the type of the computation, `theta` and `norm_momentum`.
        channels: number of channels of the result.
        kernel_size: size along each axis; odd.
        strides: stride along each axis.
        kind: `'vanilla'`, `'cdc_st'` or `'cdc_t'`, see `central_difference`.
        has_relu: whether there is a ReLU.
    """

    spec: specification.Mfst
    channels: int
    kernel_size: tuple[int, int, int] = (1, 1, 1)
    strides: tuple[int, int, int] = (1, 1, 1)
    kind: str = 'vanilla'
    has_relu: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps [b t h w c] to [b t' h' w' channels]."""
        spec = self.spec
        x = convolution(
            self.channels,
            self.kernel_size,
            fold=functools.partial(central_difference, kind=self.kind, theta=spec.theta),
            strides=self.strides,
            use_bias=False,
            kernel_init=nn.initializers.he_normal(),
            dtype=spec.dtype,
            name='conv',
        )(x)
        constants = {'momentum': spec.norm_momentum, 'epsilon': 1e-3}  # I3D's epsilon
        x = batch_norm(train=train, **constants, dtype=spec.dtype, name='norm')(x)
        return nn.relu(x) if self.has_relu else x


def central_difference(kernel: jax.Array, kind: str, theta: float) -> jax.Array:
    """The kernel whose convolution is a central-difference convolution by another kernel w.

    `y(p) = Σ_n w_n x(p+n) - θ x(p) Σ_n w_n`, where the second sum is over all taps n, `'cdc_st'`,
    or over the taps at other times, `'cdc_t'`. With `'vanilla'` there is no second sum.

    Source: Ma 2024, chapter 2, after Searching Central Difference Convolutional Networks (arXiv
    2003.04092), equation 3. The second sum is one more weight of the central tap.

    Args:
        kernel: w, [t h w c d], with odd sizes.
        kind: the kind of differences.
        theta: θ, from 0 to 1.
    """
    if kind == 'vanilla':
        return kernel
    center = tuple(size // 2 for size in kernel.shape[:3])
    total = kernel.sum(axis=(0, 1, 2))
    if kind == 'cdc_t':
        total -= kernel[center[0]].sum(axis=(0, 1))
    return kernel.at[center].add(-theta * total)


class Stem(nn.Module):
    """Convolutions of 7x7x7, 1x1x1 and 3x3x3, and a pooling after the first and the last.

    Source: Ma 2024, chapter 2, and I3D. A central-difference convolution of 1x1x1 would only scale
    its input, and is a plain one.
    """

    spec: specification.Mfst

    @nn.compact
    def __call__(self, clip: jax.Array, *, train: bool) -> jax.Array:
        """Maps [b t h w c] to [b t' h/8 w/8 c'], or as `tubelet_size` says."""
        spec = self.spec
        run = rematerialize(lambda block, x: block(x, train=train), spec.remat)
        first, *pools = spec.stem_strides
        channels = [spec.in_proportion(number) for number in (64, 64, 192)]
        block = ConvBlock(spec, channels[0], (7, 7, 7), first, spec.stem, name='conv_0')
        x = max_pool(run(block, clip), _WINDOW, pools[0])
        x = run(ConvBlock(spec, channels[1], name='conv_1'), x)
        x = run(ConvBlock(spec, channels[2], (3, 3, 3), kind=spec.stem, name='conv_2'), x)
        return max_pool(x, _WINDOW, pools[1])


class Inception(nn.Module):
    """Four branches side by side: 1x1x1; twice 1x1x1, then 1x3x3; a pooling, then 1x1x1.

    Source: I3D (arXiv 1705.07750), figure 3, with kernels of a single frame, as in Ma 2024.

    Attributes:
        spec: see `ConvBlock`.
        channels: of the convolutions b0; b1a and b1b; b2a and b2b; b3.
    """

    spec: specification.Mfst
    channels: tuple[int, ...]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Maps [b t h w c] to [b t h w c0+c1b+c2b+c3]."""

        def block(name: str, channels: int, x: jax.Array, size: int = 1) -> jax.Array:
            return ConvBlock(self.spec, channels, (1, size, size), name=name)(x, train=train)

        b0, b1a, b1b, b2a, b2b, b3 = self.channels
        branches = (
            block('b0', b0, x),
            block('b1b', b1b, block('b1a', b1a, x), size=3),
            block('b2b', b2b, block('b2a', b2a, x), size=3),
            block('b3', b3, max_pool(x, _WINDOW, (1, 1, 1))),
        )
        return jnp.concatenate(branches, axis=-1)


class Stage(nn.Module):
    """Two inception modules, a pooling, the spatial and the temporal transformer, and a residual.

    Source: Ma 2024, chapter 2: MSC-Trans, then WMS-Trans.

    Attributes:
        spec: sizes, rates and switches.
        index: number of the stage, counted from zero.
    """

    spec: specification.Mfst
    index: int

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool, capture_attention: bool
    ) -> tuple[jax.Array, dict[str, dict]]:
        """Maps [b t h w c] to [b t ⌈h/2⌉ ⌈w/2⌉ d].

        Returns:
            The tokens, and, if captured, attention weights by transformer.
        """
        spec, mode = self.spec, {'train': train, 'capture_attention': capture_attention}
        run = rematerialize(lambda block, x: block(x, train=train), spec.remat)
        maps = x
        for number, channels in enumerate(spec.stage_channels(self.index)):
            maps = run(Inception(spec, channels, name=f'inception_{number}'), maps)
        maps = max_pool(maps, _WINDOW, (1, 2, 2))
        spatial = spec.transformer(self.index, is_near=spec.knn_spatial)
        maps = layer_norm(spec, 'embedding_norm')(maps)
        maps = Linear((spatial.hidden_size,), dtype=spec.dtype, name='embedding')(maps)
        tokens = rearrange(maps, 'b t h w d -> b t (h w) d')
        encode = _encoder(spatial, 'space', name='SpatialTransformer')
        tokens, weights = encode(tokens, **mode)
        captured = {'SpatialTransformer': weights}
        temporal = spec.transformer(self.index, is_near=spec.knn_temporal)
        tokens, weights = TemporalTransformer(temporal, name='TemporalTransformer')(tokens, **mode)
        captured |= {f'TemporalTransformer/{scale}': x for scale, x in weights.items()}
        return tokens.reshape(maps.shape) + self._residual(x, maps.shape[-1], train), captured

    def _residual(self, x: jax.Array, width: int, train: bool) -> jax.Array | float:
        spec = self.spec
        if self.index == 0 or spec.stage_residual == 'none':
            return 0.0
        if spec.stage_residual == 'pool':
            return pool_residual(x, width)
        shortcut = ConvBlock(spec, width, strides=(1, 2, 2), has_relu=False, name='shortcut')
        return shortcut(x, train=train)


def pool_residual(x: jax.Array, width: int) -> jax.Array:
    """Means of 2x2 places, and zeros as further channels: [b t h w c] to [b t ⌈h/2⌉ ⌈w/2⌉ width].

    Where height or width is odd, zeros are taken for what is missing at the end.
    """
    rows, columns = (-size % 2 for size in x.shape[2:4])
    x = jnp.pad(x, ((0, 0), (0, 0), (0, rows), (0, columns), (0, width - x.shape[-1])))
    return reduce(x, 'b t (h i) (w j) c -> b t h w c', 'mean', i=2, j=2)


class TemporalTransformer(nn.Module):
    """The mean of transformers over time that take s consecutive steps together, for scales s.

    Source: Ma 2024, chapter 2, WMS-Trans; the mean over scales is not in the thesis.
    """

    spec: specification.Mfst

    @nn.compact
    def __call__(
        self, tokens: jax.Array, *, train: bool, capture_attention: bool
    ) -> tuple[jax.Array, dict[int, dict]]:
        """Maps tokens [b t n d] to [b t n d]; t divides by all scales.

        Returns:
            The tokens, and, if captured, attention weights by scale.
        """
        spec, mixed, captured = self.spec, [], {}
        num_encoders = 1 if spec.weight_shared else len(spec.scales)
        encoders = [_encoder(spec, 'time', name=f'scales_{i}') for i in range(num_encoders)]
        for index, scale in enumerate(spec.scales):
            steps = reduce(tokens, 'b (t s) n d -> b t n d', 'mean', s=scale)
            positions = sincos_sequence(steps.shape[1], steps.shape[-1])
            steps = steps + jnp.asarray(positions, steps.dtype)[:, None]
            steps, captured[scale] = encoders[index % num_encoders](
                steps, train=train, capture_attention=capture_attention
            )
            mixed.append(jnp.repeat(steps, scale, axis=1))
        return sum(mixed) / len(mixed), captured


def _encoder(spec: specification.Mfst, axis: str, name: str) -> Encoder:
    """A transformer along an axis of tokens [b t n d], without a norm at its end."""
    attention = functools.partial(SelfAttention, head_dim=spec.head_dim, has_bias=False)
    block = functools.partial(EncoderBlock, axes=(axis,), attention=attention)
    return Encoder(spec, (), 'none', block=block, has_final_norm=False, name=name)
