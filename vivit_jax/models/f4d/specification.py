"""Keywords of F4D (Al-Saad et al. 2024) and of V4D (Zhang et al. 2020, arXiv 2002.07442)."""

import dataclasses
import itertools
import math
from typing import ClassVar

from vivit_jax.layers.keywords import Keywords
from vivit_jax.layers.specification import Specification

ATTENTIONS = ('ta', 'ca', 'sta', 'se', 'cbam')
STAGES = ('conv2', 'conv3', 'conv4', 'conv5')


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnitNetwork(Specification):
    """A residual network on each unit of a video, with residual blocks that see all units.

    Attributes:
        stage_blocks: bottlenecks of the stages conv2 to conv5; (3, 4, 6, 3) is ResNet-50.
        width: channels of conv1; the features are 32 times as wide.
        temporal_kernels: frames that the first convolution of each bottleneck sees, by stage.
        blocks: places of the blocks over units: `'conv3.1'` is after bottleneck 1 of conv3, counted
            from zero, `'conv3'` after the last bottleneck of conv3, `'conv1'` before the pooling.
        block_kernel: (u, t, h, w) size of the blocks' convolutions, each odd.
        pixel_mean: what is subtracted from the pixels before the first convolution, which pads with
            zeros: a number for each channel, or one for all; the means of the pixels, in the range
            of the preprocessing, on which the weights were trained that the model starts from.
        dropout_rate: dropout of each unit's features.
    """

    num_classes: int | dict[str, int] = dataclasses.field(default=174, hash=False)
    stage_blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    width: int = 64
    temporal_kernels: tuple[int, int, int, int] = (1, 1, 3, 3)
    blocks: tuple[str, ...] = ('conv3.1', 'conv3.3')
    block_kernel: tuple[int, int, int, int] = (3, 3, 1, 1)
    pixel_mean: tuple[float, ...] = (0.0,)
    dropout_rate: float = 0.5

    # The places of F4D's ablation, by the names in the paper, and the network without blocks.
    PRESETS: ClassVar[dict[str, Keywords]] = {
        'I3D-S': {'blocks': ()},
        'conv1': {'blocks': ('conv1',)},
        **{stage: {'blocks': (stage,)} for stage in STAGES},
        'conv2-3': {'blocks': ('conv2', 'conv3')},
        'conv3-4': {'blocks': ('conv3', 'conv4')},
        'conv2-5': {'blocks': STAGES},
    }
    SMALL: ClassVar[Keywords] = {
        'stage_blocks': (1, 1, 1, 1),
        'width': 16,
        'blocks': ('conv3',),
        'dropout_rate': 0.1,
    }
    TINY: ClassVar[Keywords] = {'stage_blocks': (1, 1, 1, 1), 'width': 8, 'blocks': ('conv2',)}
    TORCH_NAMES = (
        ('conv1', 'conv1', 'convolution_without_bias'),
        ('norm1', 'norm1', 'batch_norm'),
        (r'conv(\d)_(\d+)/(conv\d|shortcut)', r'conv\1.\2.\3', 'convolution_without_bias'),
        (r'conv(\d)_(\d+)/(norm\d|shortcut_norm)', r'conv\1.\2.\3', 'batch_norm'),
        (r'(\w+)_block/(\w*conv)', r'blocks.\1.\2', 'convolution_without_bias'),
    )
    takes_units = True
    own_parameters = (r'\w+_block/.+',)

    def num_features(self, grid: tuple[int, int, int]) -> int:
        return 32 * self.width

    def places(self, stage: int) -> list[tuple[str, bool]]:
        """The names of a stage's bottlenecks, and whether a block follows the bottleneck."""
        name, count = STAGES[stage], self.stage_blocks[stage]
        wanted = {place if '.' in place else f'{place}.{count - 1}' for place in self.blocks}
        return [(f'{name}_{index}', f'{name}.{index}' in wanted) for index in range(count)]

    @property
    def block_channels(self) -> dict[str, int]:
        """The channels at each block, by the name of the place: `conv1`, or stage_bottleneck."""
        channels = {'conv1': self.width} if 'conv1' in self.blocks else {}
        for stage in range(len(STAGES)):
            for name, has_block in self.places(stage):
                if has_block:
                    channels[name] = 4 * self.width << stage
        return channels

    def check(self):
        super().check()
        self.check_at_least(1, 'width')
        for keyword in ('stage_blocks', 'temporal_kernels', 'block_kernel'):
            value = getattr(self, keyword)
            is_odd = keyword == 'stage_blocks' or all(size % 2 for size in value)
            if len(value) != 4 or min(value) < 1 or not is_odd:
                numbers = 'numbers' if keyword == 'stage_blocks' else 'odd numbers'
                raise ValueError(f'{keyword}={value} must be four {numbers} from 1')
        if len(self.pixel_mean) not in (1, self.num_channels):
            raise ValueError(
                f'pixel_mean={self.pixel_mean} must have one number, or one for each of the '
                f'{self.num_channels} channels'
            )
        names = [name for name, _ in itertools.chain(*map(self.places, range(len(STAGES))))]
        known = {'conv1', *STAGES, *(name.replace('_', '.') for name in names)}
        for place in self.blocks:
            if place not in known:
                raise ValueError(
                    f'blocks={self.blocks}: {place!r} is no place: take conv1, a stage, such as '
                    'conv3, or a bottleneck of a stage, such as conv3.0; the stages have '
                    f'{self.stage_blocks} bottlenecks'
                )
        if len(self.block_channels) < len(self.blocks):
            raise ValueError(f'blocks={self.blocks} names a place twice')

    def grid(self, clip_shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Places of the last features along time, height and width of a clip ([u] t h w)."""
        time, height, width = clip_shape[-3:]
        return time, math.ceil(height / 32), math.ceil(width / 32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class F4d(UnitNetwork):
    """F4D: its (3+1)D blocks convolve units and pixels, then time, and attend.

    Attributes:
        attention: the attention modules of a block, in their order: `'ta'`, temporal, `'ca'`,
            channel, `'sta'`, spatio-temporal; to compare with, `'se'` and `'cbam'`; () has none.
        reduction: how many times fewer channels the hidden layer of channel attention has.
        block_dropout_rate: dropout of a block's residual branch, before its attention.
    """

    attention: tuple[str, ...] = ('ta', 'ca', 'sta')
    reduction: int = 16
    block_dropout_rate: float = 0.2

    EXTENDS = ('v4d',)
    TINY: ClassVar[Keywords] = {**UnitNetwork.TINY, 'reduction': 4}
    TORCH_NAMES = (
        *UnitNetwork.TORCH_NAMES,
        (r'(\w+)_block/(\w+_norm)', r'blocks.\1.\2', 'batch_norm'),
        (r'(\w+)_block/(ta|sta)/(\w+)', r'blocks.\1.attention.\2.\3', 'convolution'),
        (
            r'(\w+)_block/(ca|se|cbam_channel)/(\w+)',
            r'blocks.\1.attention.\2.\3',
            'linear_without_bias',
        ),
        (
            r'(\w+)_block/cbam_space/conv',
            r'blocks.\1.attention.cbam_space.conv',
            'convolution_without_bias',
        ),
    )

    def hidden_channels(self, channels: int) -> int:
        """Channels within a block, so that the block has as many weights as a 4-D convolution."""
        units, time, height, width = self.block_kernel
        over_units = units * height * width
        return over_units * time * channels**2 // (over_units * channels + time * channels)

    def check(self):
        super().check()
        self.check_rates('block_dropout_rate')
        if not set(self.attention) <= set(ATTENTIONS) or len(set(self.attention)) < len(
            self.attention
        ):
            raise ValueError(
                f'attention={self.attention} must name modules of {ATTENTIONS}, each once'
            )
        narrowest = min(self.block_channels.values(), default=self.reduction)
        if not 1 <= self.reduction <= narrowest:
            raise ValueError(
                f'reduction={self.reduction} must lie between 1 and the channels of each block, of '
                f'which the fewest are {narrowest}'
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class V4d(UnitNetwork):
    """V4D: its blocks add a convolution over units, time and pixels, without norm or activation."""

    EXTENDS = ('f4d',)
