"""MFST in PyTorch: the model of `vivit_jax.models.mfst.model`.

Source: Yujun Ma, Deep learning for action recognition in videos (PhD thesis, Massey University,
2024), chapter 2; below, "Ma 2024".
"""

import functools

import torch
import torch.nn.functional as F
from einops import rearrange, reduce
from torch import nn

from vivit_jax.layers.grid import sincos_sequence
from vivit_jax.layers.torch.convolution import BatchNorm, Convolution, lecun_normal, max_pool
from vivit_jax.layers.torch.tokens import VideoModel, linear
from vivit_jax.layers.torch.transformer import Encoder, EncoderBlock, SelfAttention, layer_norm
from vivit_jax.models.mfst import specification

_WINDOW = (1, 3, 3)  # of all poolings
_he_normal = functools.partial(lecun_normal, scale=2.0)


class Mfst(VideoModel):
    """A stem, stages, a LayerNorm, the mean over time and space."""

    def __init__(self, spec: specification.Mfst, clip_shape: tuple[int, int, int]):
        super().__init__(spec, clip_shape)
        self.stem = Stem(spec)
        self.stages = nn.ModuleList(Stage(spec, index) for index in range(spec.num_stages))
        self.norm = layer_norm(spec)

    def encode(self, clip: torch.Tensor) -> torch.Tensor:
        x = self.stem(clip)
        for stage in self.stages:
            x = stage(x)
        return self.norm(x).mean(dim=(1, 2, 3))


class ConvBlock(nn.Module):
    """`ReLU(BN(Conv(x)))`, or without ReLU; the convolution has no bias.

    Args:
        spec: `theta` and `norm_momentum`.
        inputs, channels: numbers of channels of the input and of the result.
        kernel_size: size along each axis; odd.
        strides: stride along each axis.
        kind: `'vanilla'`, `'cdc_st'` or `'cdc_t'`, see `CentralDifference`.
        has_relu: whether there is a ReLU.
    """

    def __init__(
        self,
        spec: specification.Mfst,
        inputs: int,
        channels: int,
        kernel_size: tuple[int, int, int] = (1, 1, 1),
        strides: tuple[int, int, int] = (1, 1, 1),
        *,
        kind: str = 'vanilla',
        has_relu: bool = True,
    ):
        super().__init__()
        make = Convolution
        if kind != 'vanilla':
            make = functools.partial(CentralDifference, kind, spec.theta)
        self.conv = make(
            inputs, channels, kernel_size, stride=strides, has_bias=False, init=_he_normal
        )
        self.norm = BatchNorm(channels, momentum=spec.norm_momentum, epsilon=1e-3)  # I3D's epsilon
        self.has_relu = has_relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [b t h w c] to [b t' h' w' channels]."""
        x = self.norm(self.conv(x))
        return F.relu(x) if self.has_relu else x


class CentralDifference(Convolution):
    """A central-difference convolution: `y(p) = Σ_n w_n x(p+n) - θ x(p) Σ_n w_n`.

    The second sum is over all taps n, `'cdc_st'`, or over those of other times, `'cdc_t'`.

    Source: Ma 2024, chapter 2, after Searching Central Difference Convolutional Networks (arXiv
    2003.04092), equation 3. The second sum is one more weight of the central tap.
    """

    def __init__(self, kind: str, theta: float, *args, **keywords):
        super().__init__(*args, **keywords)
        self.kind, self.theta = kind, theta

    def kernel(self) -> torch.Tensor:
        weight = self.weight
        time, height, width = (size // 2 for size in weight.shape[2:])
        total = weight.sum(dim=(2, 3, 4))
        if self.kind == 'cdc_t':
            total = total - weight[:, :, time].sum(dim=(2, 3))
        center = torch.zeros_like(weight)
        center[:, :, time, height, width] = 1
        return weight - self.theta * total[..., None, None, None] * center


class Stem(nn.Module):
    """Convolutions of 7x7x7, 1x1x1 and 3x3x3, and a pooling after the first and the last.

    Source: Ma 2024, chapter 2, and I3D.
    """

    def __init__(self, spec: specification.Mfst):
        super().__init__()
        first, *self.pools = spec.stem_strides
        channels = [spec.in_proportion(number) for number in (64, 64, 192)]
        block = functools.partial(ConvBlock, spec)
        self.conv_0 = block(spec.num_channels, channels[0], (7, 7, 7), first, kind=spec.stem)
        self.conv_1 = block(*channels[:2])
        self.conv_2 = block(*channels[1:], (3, 3, 3), kind=spec.stem)

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        """Maps [b t h w c] to [b t' h/8 w/8 c'], or as `tubelet_size` says."""
        x = max_pool(self.conv_0(clip), _WINDOW, self.pools[0])
        return max_pool(self.conv_2(self.conv_1(x)), _WINDOW, self.pools[1])


class Inception(nn.Module):
    """Four branches side by side: 1x1x1; twice 1x1x1, then 1x3x3; a pooling, then 1x1x1.

    Source: I3D (arXiv 1705.07750), figure 3, with kernels of a single frame, as in Ma 2024.

    Args:
        spec: see `ConvBlock`.
        inputs: number of channels of the input.
        channels: of the convolutions b0; b1a and b1b; b2a and b2b; b3.
    """

    def __init__(self, spec: specification.Mfst, inputs: int, channels: tuple[int, ...]):
        super().__init__()
        b0, b1a, b1b, b2a, b2b, b3 = channels
        block = functools.partial(ConvBlock, spec)
        self.b0 = block(inputs, b0)
        self.b1a, self.b1b = block(inputs, b1a), block(b1a, b1b, _WINDOW)
        self.b2a, self.b2b = block(inputs, b2a), block(b2a, b2b, _WINDOW)
        self.b3 = block(inputs, b3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [b t h w c] to [b t h w c0+c1b+c2b+c3]."""
        branches = (
            self.b0(x),
            self.b1b(self.b1a(x)),
            self.b2b(self.b2a(x)),
            self.b3(max_pool(x, _WINDOW, (1, 1, 1))),
        )
        return torch.cat(branches, dim=-1)


class Stage(nn.Module):
    """Two inception modules, a pooling, the spatial and the temporal transformer, and a residual.

    Source: Ma 2024, chapter 2: MSC-Trans, then WMS-Trans.

    Args:
        spec: sizes, rates and switches.
        index: number of the stage, counted from zero.
    """

    def __init__(self, spec: specification.Mfst, index: int):
        super().__init__()
        spatial = spec.transformer(index, is_near=spec.knn_spatial)
        width = spatial.hidden_size
        first, second = spec.stage_channels(index)
        inputs, inner, outputs = spec.stage_inputs(index), _outputs(first), _outputs(second)
        self.inception_0 = Inception(spec, inputs, first)
        self.inception_1 = Inception(spec, inner, second)
        self.embedding_norm = nn.LayerNorm(outputs, spec.layer_norm_eps)
        self.embedding = linear(outputs, width)
        self.spatial = _encoder(spatial, 'space')
        self.temporal = TemporalTransformer(spec.transformer(index, is_near=spec.knn_temporal))
        self.residual = spec.stage_residual if index else 'none'
        if self.residual == 'proj':
            strides = (1, 2, 2)
            self.shortcut = ConvBlock(spec, inputs, width, strides=strides, has_relu=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps [b t h w c] to [b t ⌈h/2⌉ ⌈w/2⌉ d]."""
        maps = self.inception_1(self.inception_0(x))
        maps = self.embedding(self.embedding_norm(max_pool(maps, _WINDOW, (1, 2, 2))))
        tokens = rearrange(maps, 'b t h w d -> b t (h w) d')
        maps = self.temporal(self.spatial(tokens)).reshape(maps.shape)
        if self.residual == 'pool':
            return maps + pool_residual(x, maps.shape[-1])
        return maps + self.shortcut(x) if self.residual == 'proj' else maps


def pool_residual(x: torch.Tensor, width: int) -> torch.Tensor:
    """Means of 2x2 places, and zeros as further channels: [b t h w c] to [b t ⌈h/2⌉ ⌈w/2⌉ width].

    Where height or width is odd, zeros are taken for what is missing at the end.
    """
    rows, columns = (-size % 2 for size in x.shape[2:4])
    x = F.pad(x, (0, width - x.shape[-1], 0, columns, 0, rows))
    return reduce(x, 'b t (h i) (w j) c -> b t h w c', 'mean', i=2, j=2)


class TemporalTransformer(nn.Module):
    """The mean of transformers over time that take s consecutive steps together, for scales s.

    Source: Ma 2024, chapter 2, WMS-Trans; the mean over scales is not in the thesis.
    """

    def __init__(self, spec: specification.Mfst):
        super().__init__()
        self.steps = spec.scales
        num_encoders = 1 if spec.weight_shared else len(spec.scales)
        self.scales = nn.ModuleList(_encoder(spec, 'time') for _ in range(num_encoders))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Maps tokens [b t n d] to [b t n d]; t divides by all scales."""
        mixed = []
        for index, scale in enumerate(self.steps):
            steps = reduce(tokens, 'b (t s) n d -> b t n d', 'mean', s=scale)
            positions = torch.from_numpy(sincos_sequence(steps.shape[1], steps.shape[-1]))
            steps = steps + positions.to(steps)[:, None]
            steps = self.scales[index % len(self.scales)](steps)
            mixed.append(steps.repeat_interleave(scale, dim=1))
        return sum(mixed) / len(mixed)


def _outputs(channels: tuple[int, ...]) -> int:
    """The number of channels that an inception module returns."""
    b0, _, b1b, _, b2b, b3 = channels
    return b0 + b1b + b2b + b3


def _encoder(spec: specification.Mfst, axis: str) -> Encoder:
    """A transformer along an axis of tokens [b t n d], without a norm at its end."""
    attention = functools.partial(
        SelfAttention, num_heads=spec.num_heads, head_dim=spec.head_dim, has_bias=False
    )
    block = functools.partial(EncoderBlock, attentions={'attention': (axis,)}, attention=attention)
    return Encoder(spec, (), 'none', block=block, pool='none', has_final_norm=False)
