"""CTN (Ma et al., a chapter of a thesis of 2023-24): convolutions within a video transformer."""

import functools
from collections.abc import Mapping

import torch

from vivit_jax.models.choices import CTN_CHOICES, check_ctn, stem_reduction
from vivit_jax.torch.convolution import ConvStem, LocalTokens, identity, lecun_normal
from vivit_jax.torch.layers import NUM_CHANNELS, SelfAttention, Tokenizer
from vivit_jax.torch.transformer import VideoTransformer

_INITS = {'identity': identity, 'lecun': lecun_normal}


class Ctn(VideoTransformer):
    """A stem, tubelets of its channels, a class token, an encoder.

    Args:
        clip_shape, ...: see `VideoTransformer`.
        embed, ...: as of `vivit_jax.models.ctn.Ctn`.
    """

    CHOICES = CTN_CHOICES
    check = staticmethod(check_ctn)

    def __init__(
        self,
        clip_shape: tuple[int, int, int],
        *,
        num_classes: int | Mapping[str, int] = 48,
        embed: str = 'video_to_tokens',
        stem_kernel: int = 7,
        stem_stride: int = 2,
        stem_pool: bool = True,
        stem_bn: bool = True,
        stem_channels: int = 32,
        stem_t_stride: tuple[int, int] = (1, 1),
        position: str = 'none',
        mapping: str = 'conv',
        mapping_kernel: int = 3,
        mapping_bn: bool = True,
        depthwise_init: str = 'identity',
        norm: str = 'pre',
        **keywords,
    ):
        super().__init__(clip_shape, num_classes=num_classes, **keywords)
        self.stem, channels = None, NUM_CHANNELS
        if embed == 'video_to_tokens':
            time, pool_time = stem_t_stride
            stride = (time, stem_stride, stem_stride)
            pool_stride = (pool_time, 2, 2) if stem_pool else ()
            self.stem = ConvStem(channels, stem_channels, stem_kernel, stride, pool_stride, stem_bn)
            channels = stem_channels
        reduction = stem_reduction(embed, stem_stride, stem_pool, stem_t_stride)
        kernel = tuple(
            whole // part for whole, part in zip(self.tubelet_size, reduction, strict=True)
        )
        self.tokenizer = Tokenizer(self.hidden_size, kernel, 'tubelet', 0, channels)
        attention = SelfAttention
        if mapping == 'conv':
            local = functools.partial(
                LocalTokens,
                self.hidden_size,
                self.grid,
                mapping_kernel,
                mapping_bn,
                _INITS[depthwise_init],
            )
            attention = functools.partial(SelfAttention, local=local)
        self.encoder = self._encoder(
            grid=self.grid, pool='cls', position=position, norm=norm, attention=attention
        )

    def _features(self, clip: torch.Tensor) -> torch.Tensor:
        clip = clip if self.stem is None else self.stem(clip)
        return self.encoder(self.tokenizer(clip).flatten(1, 3))
