"""Keywords of CTN, the convolutional transformer network.

Source: Yujun Ma, Deep learning for action recognition in videos (PhD thesis, Massey University,
2024), chapter 4.
"""

import dataclasses
from typing import ClassVar, Literal

from vivit_jax.layers.keywords import Keywords
from vivit_jax.layers.specification import TransformerSpecification


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ctn(TransformerSpecification):
    """ViViT's model 1 with convolutions before and within the encoder.

    `tubelet_size` counts frames and pixels of the clip, not of the stem's output, so that the
    number of tokens does not depend on the stem.

    Attributes:
        embed: `'video_to_tokens'`, with the stem, or `'tubelet'`, without.
        stem_kernel: size of the stem's convolution along each axis; odd.
        stem_stride: stride of the stem's convolution along height and width.
        stem_pool: whether max pooling follows, which halves height and width.
        stem_bn: whether the stem has a batch norm; without it the convolution has a bias.
        stem_channels: channels of the stem.
        stem_t_stride: strides of the convolution and of the pooling along time.
        position: positions: `'none'`, `'learned'` or `'sincos3d'`.
        mapping: `'linear'`: queries, keys and values are projections of the tokens; `'conv'`: of a
            depthwise convolution of the tokens of each time index, which the class token skips.
        mapping_kernel: size of the depthwise convolution along height and width; odd.
        mapping_bn: whether a batch norm follows the depthwise convolution.
        depthwise_init: initial kernels of the depthwise convolution: `'identity'`, or `'lecun'`,
            random.
        norm: place of the LayerNorms: `'pre'` or `'post'`, see `PostNormBlock`.
    """

    num_classes: int | dict[str, int] = dataclasses.field(default=48, hash=False)
    embed: Literal['video_to_tokens', 'tubelet'] = 'video_to_tokens'
    stem_kernel: int = 7
    stem_stride: int = 2
    stem_pool: bool = True
    stem_bn: bool = True
    stem_channels: int = 32
    stem_t_stride: tuple[int, int] = (1, 1)
    position: Literal['none', 'learned', 'sincos3d'] = 'none'
    mapping: Literal['conv', 'linear'] = 'conv'
    mapping_kernel: int = 3
    mapping_bn: bool = True
    depthwise_init: Literal['identity', 'lecun'] = 'identity'
    norm: Literal['pre', 'post'] = 'pre'

    SMALL: ClassVar[Keywords] = {'stem_channels': 16}
    TINY: ClassVar[Keywords] = {'stem_channels': 4, 'stem_kernel': 3}
    EXTENDS = ('vivit_joint',)
    TORCH_NAMES = (
        ('stem/conv', 'stem.conv', 'convolution'),
        ('stem/norm', 'stem.norm', 'batch_norm'),
        (
            r'Transformer/encoderblock_(\d+)/MultiHeadDotProductAttention_0/(\w+_local)/conv',
            r'encoder.blocks.\1.attention.\2.conv',
            'convolution_without_bias',
        ),
        (
            r'Transformer/encoderblock_(\d+)/MultiHeadDotProductAttention_0/(\w+_local)/norm',
            r'encoder.blocks.\1.attention.\2.norm',
            'batch_norm',
        ),
    )

    @property
    def own_parameters(self) -> tuple[str, ...]:
        """Patterns as for every model. With a stem they include the tokenizer.

        The tokenizer then reads the stem's channels, so that no other weights fit.
        """
        stem = ('stem/.+', 'embedding/.+') if self.embed == 'video_to_tokens' else ()
        return (r'.+/\w+_local/.+', *stem)

    @property
    def stem_strides(self) -> tuple[int, int, int]:
        """(t, h, w) strides of the stem's convolution."""
        return self.stem_t_stride[0], self.stem_stride, self.stem_stride

    @property
    def pool_strides(self) -> tuple[int, ...]:
        """(t, h, w) strides of the stem's pooling; () without pooling."""
        return (self.stem_t_stride[1], 2, 2) if self.stem_pool else ()

    @property
    def stem_reduction(self) -> tuple[int, int, int]:
        """The factors by which the stem divides frames, height and width."""
        if self.embed == 'tubelet':
            return 1, 1, 1
        pool = self.pool_strides or (1, 1, 1)
        return tuple(a * b for a, b in zip(self.stem_strides, pool, strict=True))

    @property
    def patch_size(self) -> tuple[int, int, int]:
        """The size of a tubelet in frames and pixels of the stem's output."""
        sizes = zip(self.tubelet_size, self.stem_reduction, strict=True)
        return tuple(whole // part for whole, part in sizes)

    def check(self):
        super().check()
        for name in ('stem_kernel', 'mapping_kernel'):
            if getattr(self, name) < 1 or getattr(self, name) % 2 == 0:
                raise ValueError(f'{name}={getattr(self, name)} must be odd, to have a center')
        self.check_at_least(1, 'stem_stride', 'stem_channels')
        if len(self.stem_t_stride) != 2 or min(self.stem_t_stride) < 1:
            raise ValueError(
                f'stem_t_stride={self.stem_t_stride} must be two strides, of convolution and '
                'pooling, each at least 1'
            )
        sizes = zip(self.tubelet_size, self.stem_reduction, strict=True)
        if any(whole % part for whole, part in sizes):
            raise ValueError(
                f'tubelet_size={self.tubelet_size} must be a multiple of {self.stem_reduction}, '
                'by which the stem makes the clip smaller'
            )
