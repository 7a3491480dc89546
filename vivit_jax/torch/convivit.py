"""ConViViT (Dokkar et al. 2023): a small CNN in front of a factorized video transformer."""

import itertools
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import nn

from vivit_jax.models.choices import CONVIVIT_CHOICES, check_convivit
from vivit_jax.torch.convolution import CnnBlock, PositionConvolution
from vivit_jax.torch.layers import HEADS_SHARED, NUM_CHANNELS, SPACE_THEN_TIME, Tokenizer
from vivit_jax.torch.transformer import VideoTransformer

_ATTENTIONS = {'self_attention': SPACE_THEN_TIME, 'dot_product': HEADS_SHARED}


class ConViViT(VideoTransformer):
    """A CNN over the clip, patches of its channels, an encoder, the mean over tokens.

    Args:
        clip_shape, ...: see `VideoTransformer`.
        cnn_blocks, ...: as of `vivit_jax.models.convivit.ConViViT`.
    """

    CHOICES = CONVIVIT_CHOICES
    check = staticmethod(check_convivit)

    def __init__(
        self,
        clip_shape: tuple[int, int, int],
        *,
        num_classes: int | Mapping[str, int] = 51,
        tubelet_size: tuple[int, int, int] = (1, 16, 16),
        cnn_blocks: int = 1,
        cnn_channels: int = 128,
        cnn_conv5: str = 'depthwise',
        cnn_stride: int = 1,
        factorization: str = 'self_attention',
        **keywords,
    ):
        super().__init__(clip_shape, num_classes=num_classes, tubelet_size=tubelet_size, **keywords)
        self.cnn_stride = cnn_stride
        channels = [NUM_CHANNELS, *[cnn_channels] * cnn_blocks]
        self.cnn = nn.Sequential(
            *(CnnBlock(*pair, cnn_conv5) for pair in itertools.pairwise(channels))
        )
        length, *patch = tubelet_size
        kernel = (length, *(size // cnn_stride for size in patch))
        self.tokenizer = Tokenizer(self.hidden_size, kernel, 'tubelet', 0, channels[-1])
        self.embedding_norm = nn.LayerNorm(self.hidden_size, self._block['layer_norm_eps'])
        self.embedding_position = PositionConvolution(self.hidden_size)
        self.encoder = self._encoder(
            grid=self.grid, pool='mean', position='none', attentions=_ATTENTIONS[factorization]
        )

    def _features(self, clip: torch.Tensor) -> torch.Tensor:
        if self.cnn_stride > 1:
            window = (1, self.cnn_stride, self.cnn_stride)
            clip = F.avg_pool3d(clip.movedim(-1, 1), window).movedim(1, -1)
        tokens = self.embedding_norm(self.tokenizer(self.cnn(clip)))
        return self.encoder(self.embedding_position(tokens).flatten(2, 3))
