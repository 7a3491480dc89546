"""Keywords of MFST, the multi-stage factorized spatio-temporal model for RGB-D.

Source: Yujun Ma, Deep learning for action recognition in videos (PhD thesis, Massey University,
2024), chapter 2; below, "Ma 2024". The channels are I3D's (arXiv 1705.07750).
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar, Literal, Self

from vivit_jax.layers.keywords import Keywords
from vivit_jax.layers.specification import TransformerSpecification

Convolution = Literal['cdc_st', 'cdc_t', 'vanilla']

# Channels (b0; b1a, b1b; b2a, b2b; b3) of the two inception modules of each stage, see `Inception`.
_MODULES = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),  # 3b, 3c in I3D
    ((192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64)),  # 4b, 4c
    ((128, 128, 256, 24, 64, 64), (112, 144, 288, 32, 64, 64)),  # 4d, 4e
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),  # 5b, 5c
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mfst(TransformerSpecification):
    """A convolutional stem, then stages of convolutions, a spatial and a temporal transformer.

    Each stage halves height and width. `tubelet_size` counts the frames and pixels of the clip that
    make a token of the first stage: t is the stride of the stem along time, and h and w are 16, or
    8, 4 or 2, for which fewer layers of the stem halve height and width.

    Attributes:
        num_stages: 3, MFST-Base, or 4, MFST-Large.
        hidden_size: width of the tokens in stages 3 and 4; in stages 1 and 2 half of it.
        num_layers: blocks of each transformer.
        num_heads: attention heads.
        head_dim: channels of a head, whatever the width of the tokens.
        knn_ratio: share of the tokens that each token attends to, in the attentions that
            `knn_spatial` and `knn_temporal` name.
        knn_spatial: whether the spatial transformers have k-NN attention.
        knn_temporal: whether the temporal transformers have k-NN attention.
        scales: numbers of time steps that the temporal transformers take together, see
            `TemporalTransformer`.
        weight_shared: whether a temporal transformer has the same parameters at all scales.
        stem_rgb: convolutions of the stem for RGB: central differences in space and time,
            `'cdc_st'`, or in time, `'cdc_t'`, or `'vanilla'`, see `central_difference`.
        stem_depth: the same for depth. A depth model that starts from the weights of an RGB model
            computes differences of this kind with their kernels.
        theta: weight of the central differences; 0 is a vanilla convolution.
        stem_channels: channels of the first convolution; all others have channels in proportion.
        norm_momentum: share of its statistics that a batch norm keeps in a training step. With
            I3D's, 0.99, evaluation needs some 300 steps of training before it.
        stage_residual: from stage 2 on, what is added to a stage's output: its input, pooled and
            with zeros as further channels, `'pool'`; a projection of its input, `'proj'`; or
            `'none'`.
    """

    num_classes: int | dict[str, int] = dataclasses.field(default=60, hash=False)
    num_stages: Literal[3, 4] = 3
    hidden_size: int = 512
    num_layers: int = 4
    num_heads: int = 8
    head_dim: int = 64
    mlp_dim: int = 768
    tubelet_size: tuple[int, int, int] = (1, 16, 16)
    gelu: Literal['tanh', 'exact', 'quick'] = 'exact'
    knn_ratio: float = 0.7
    knn_spatial: bool = True
    knn_temporal: bool = False
    scales: tuple[int, ...] = (1, 2, 4)
    weight_shared: bool = True
    stem_rgb: Convolution = 'cdc_st'
    stem_depth: Convolution = 'cdc_t'
    theta: float = 0.6
    stem_channels: int = 64
    norm_momentum: float = 0.99
    stage_residual: Literal['pool', 'proj', 'none'] = 'pool'

    # The names of Ma 2024. BM is the baseline; V-Trans has a temporal transformer of one scale.
    PRESETS: ClassVar[Mapping[str, Keywords]] = {
        'Base': {'num_stages': 3},
        'Large': {'num_stages': 4},
        'BM': {'num_stages': 4, 'theta': 0.0, 'scales': (1,), 'stage_residual': 'none'},
        'V-Trans': {'num_stages': 4, 'scales': (1,)},
    }
    SMALL: ClassVar[Keywords] = {
        'hidden_size': 128,
        'num_layers': 1,
        'head_dim': 16,
        'mlp_dim': 192,
        'tubelet_size': (2, 16, 16),
        'stem_channels': 16,
        'norm_momentum': 0.9,
    }
    TINY: ClassVar[Keywords] = {
        'num_layers': 1,
        'head_dim': 8,
        'tubelet_size': (1, 8, 8),
        'scales': (1, 2),
        'stem_channels': 8,
    }
    own_parameters = (r'(stem|stage_\d)/.+', 'encoder_norm/.+')
    TORCH_NAMES = (
        (r'stem/(conv_\d)/conv', r'stem.\1.conv', 'convolution_without_bias'),
        (r'stem/(conv_\d)/norm', r'stem.\1.norm', 'batch_norm'),
        (
            r'stage_(\d)/(inception_\d)/(\w+)/conv',
            r'stages.\1.\2.\3.conv',
            'convolution_without_bias',
        ),
        (r'stage_(\d)/(inception_\d)/(\w+)/norm', r'stages.\1.\2.\3.norm', 'batch_norm'),
        (r'stage_(\d)/shortcut/conv', r'stages.\1.shortcut.conv', 'convolution_without_bias'),
        (r'stage_(\d)/shortcut/norm', r'stages.\1.shortcut.norm', 'batch_norm'),
        (r'stage_(\d)/embedding_norm', r'stages.\1.embedding_norm', 'norm'),
        (r'stage_(\d)/embedding', r'stages.\1.embedding', 'linear'),
        (r'stage_(\d)/SpatialTransformer', r'stages.\1.spatial', 'encoder'),
        (r'stage_(\d)/TemporalTransformer/scales_(\d)', r'stages.\1.temporal.scales.\2', 'encoder'),
        ('encoder_norm', 'norm', 'norm'),
    )

    @property
    def stem(self) -> str:
        """The kind of convolution in the stem."""
        return self.stem_depth if self.modality == 'depth' else self.stem_rgb

    @property
    def stem_strides(self) -> tuple[tuple[int, int, int], ...]:
        """(t, h, w) strides of the first convolution and of the two poolings of the stem."""
        length, *patch = self.tubelet_size
        first, *others = (
            tuple(2 if size > 2**layer else 1 for size in patch) for layer in (1, 2, 3)
        )
        return (length, *first), *((1, *strides) for strides in others)

    def stage_channels(self, stage: int) -> tuple[tuple[int, ...], ...]:
        """Channels of both inception modules of a stage, counted from zero."""
        return tuple(tuple(map(self.in_proportion, module)) for module in _MODULES[stage])

    def stage_inputs(self, stage: int) -> int:
        """Number of channels that a stage takes."""
        if stage == 0:
            return self.in_proportion(192)  # of the stem
        return self.transformer(stage - 1, is_near=False).hidden_size

    def in_proportion(self, channels: int) -> int:
        """Channels of a convolution that has `channels` if the first convolution has 64."""
        return max(1, channels * self.stem_channels // 64)

    def transformer(self, stage: int, *, is_near: bool) -> Self:
        """The keywords of a transformer of a stage: its width, and with k-NN attention or not."""
        width = self.hidden_size // (2 if stage < 2 else 1)
        knn_ratio = self.knn_ratio if is_near else 1.0
        return dataclasses.replace(self, hidden_size=width, knn_ratio=knn_ratio)

    def check(self):
        super().check()
        self.check_at_least(1, 'stem_channels')
        if any(size not in (2, 4, 8, 16) for size in self.tubelet_size[1:]):
            raise ValueError(
                f'tubelet_size={self.tubelet_size} must be 2, 4, 8 or 16 pixels high and wide'
            )
        if not self.scales or min(self.scales) < 1 or len(set(self.scales)) < len(self.scales):
            raise ValueError(
                f'scales={self.scales} must be different numbers of time steps, each from 1'
            )
        if not 0 <= self.theta <= 1:
            raise ValueError(f'theta={self.theta} must lie in [0, 1]')
        if not 0 <= self.norm_momentum < 1:
            raise ValueError(f'norm_momentum={self.norm_momentum} must lie in [0, 1)')

    def check_heads(self):
        self.check_at_least(1, 'head_dim')

    def grid(self, clip_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Tokens of the first stage along time, height and width."""
        grid, steps = super().grid(clip_shape), math.lcm(*self.scales)
        if grid[0] % steps:
            raise ValueError(
                f'a clip with frames={clip_shape[0]} does not divide into tubelets of '
                f'{self.tubelet_size[0]} frames, {steps} at a time, as scales={self.scales} need: '
                f'choose frames as a multiple of {self.tubelet_size[0] * steps}'
            )
        return grid
