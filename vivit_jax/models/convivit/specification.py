"""Keywords of ConViViT (Dokkar et al. 2023, arXiv 2310.14416)."""

import dataclasses
from typing import ClassVar, Literal

from vivit_jax.layers.keywords import Keywords
from vivit_jax.layers.specification import TransformerSpecification


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConViViT(TransformerSpecification):
    """A small CNN in front of a factorized video transformer.

    Attributes:
        cnn_blocks: blocks of the CNN: 0, 1 or 2.
        cnn_channels: channels of the CNN.
        cnn_conv5: 5x5x5 convolutions of the CNN: `'depthwise'` or `'dense'`.
        cnn_stride: 2 halves height and width of the clip before the CNN, which saves memory and is
            not in the paper; the number of tokens stays the same.
        factorization: blocks of ViViT's model 3, `'self_attention'`, or of its model 4,
            `'dot_product'`.
    """

    num_classes: int | dict[str, int] = dataclasses.field(default=51, hash=False)
    tubelet_size: tuple[int, int, int] = (1, 16, 16)
    cnn_blocks: Literal[0, 1, 2] = 1
    cnn_channels: int = 128
    cnn_conv5: Literal['depthwise', 'dense'] = 'depthwise'
    cnn_stride: Literal[1, 2] = 1
    factorization: Literal['self_attention', 'dot_product'] = 'self_attention'

    SMALL: ClassVar[Keywords] = {'cnn_channels': 8}
    TINY: ClassVar[Keywords] = {'cnn_channels': 6}
    EXTENDS = ('vivit_fsa', 'vivit_fdp')
    # The tokenizer is among them, because its input has other channels than a clip, and a norm
    # follows it.
    own_parameters = (r'(cnnblock_\d+|embedding_norm|embedding_position)/.+', 'embedding/.+')
    TORCH_NAMES = (
        (r'cnnblock_(\d+)/position/conv', r'cnn.\1.position.conv', 'convolution'),
        (r'cnnblock_(\d+)/(norm_in|norm)', r'cnn.\1.\2', 'batch_norm'),
        (r'cnnblock_(\d+)/(dense_in|dense_out|shortcut)', r'cnn.\1.\2', 'linear'),
        (r'cnnblock_(\d+)/conv', r'cnn.\1.conv', 'convolution'),
        ('embedding_norm', 'embedding_norm', 'norm'),
        ('embedding_position/conv', 'embedding_position.conv', 'convolution'),
    )

    @property
    def patch_size(self) -> tuple[int, int, int]:
        """The size of a tubelet in frames and pixels of the CNN's output."""
        length, *patch = self.tubelet_size
        return length, *(size // self.cnn_stride for size in patch)

    def check(self):
        super().check()
        self.check_at_least(1, 'cnn_channels')
        if any(size % self.cnn_stride for size in self.tubelet_size[1:]):
            raise ValueError(
                f'cnn_stride={self.cnn_stride} must divide the patches of '
                f'tubelet_size={self.tubelet_size}'
            )
        if self.factorization == 'dot_product':
            self.check_even_heads()
