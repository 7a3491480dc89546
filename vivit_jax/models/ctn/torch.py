"""CTN in PyTorch: the model of `vivit_jax.models.ctn.model`.

Source: Yujun Ma, Deep learning for action recognition in videos (PhD thesis, Massey University,
2024), chapter 4; below, "Ma 2024".
"""

import functools
from collections.abc import Callable

import torch
from einops import rearrange
from torch import nn

from vivit_jax.layers.torch.convolution import (
    BatchNorm,
    Convolution,
    identity,
    lecun_normal,
    max_pool,
)
from vivit_jax.layers.torch.tokens import Tokenizer, VideoModel
from vivit_jax.layers.torch.transformer import Encoder, EncoderBlock, SelfAttention
from vivit_jax.models.ctn import specification

_INITS = {'identity': identity, 'lecun': lecun_normal}


class Ctn(VideoModel):
    """A stem, tubelets of the stem's channels, a class token, an encoder."""

    def __init__(self, spec: specification.Ctn, clip_shape: tuple[int, int, int]):
        super().__init__(spec, clip_shape)
        self.stem, channels = None, spec.num_channels
        if spec.embed == 'video_to_tokens':
            self.stem = ConvStem(
                channels,
                spec.stem_channels,
                spec.stem_kernel,
                spec.stem_strides,
                spec.pool_strides,
                spec.stem_bn,
            )
            channels = spec.stem_channels
        self.tokenizer = Tokenizer(spec.hidden_size, spec.patch_size, channels)
        attention = functools.partial(SelfAttention, num_heads=spec.num_heads)
        if spec.mapping == 'conv':
            local = functools.partial(
                LocalTokens,
                spec.hidden_size,
                self.grid,
                spec.mapping_kernel,
                spec.mapping_bn,
                _INITS[spec.depthwise_init],
            )
            attention = functools.partial(attention, local=local)
        self.encoder = Encoder(
            spec,
            self.grid,
            spec.position,
            block=functools.partial(
                EncoderBlock if spec.norm == 'pre' else PostNormBlock, attention=attention
            ),
            pool='cls',
            has_final_norm=spec.norm == 'pre',
        )

    def encode(self, clip: torch.Tensor) -> torch.Tensor:
        clip = clip if self.stem is None else self.stem(clip)
        return self.encoder(rearrange(self.tokenizer(clip), 'b t h w d -> b (t h w) d'))


class PostNormBlock(EncoderBlock):
    """`y = LN(x + MSA(x))`, `z = LN(y + MLP(y))`."""

    def add(
        self,
        norm: nn.Module,
        branch: Callable[[torch.Tensor], torch.Tensor],
        tokens: torch.Tensor,
    ) -> torch.Tensor:
        """`LN(x + branch(x))`."""
        return norm(tokens + self.drop_path(branch(tokens)))


class ConvStem(nn.Module):
    """`MaxPool3x3x3(BN(Conv(clip)))`, a smaller clip with more channels.

    Source: Ma 2024, chapter 4, section on video-to-tokens.

    Args:
        inputs: number of channels of the clip.
        channels: number of channels of the result.
        kernel_size: size of the convolution along each axis; odd.
        stride: (t, h, w) strides of the convolution.
        pool_stride: (t, h, w) strides of the pooling; (): there is no pooling.
        has_norm: whether there is a batch norm; without it the convolution has a bias.
    """

    def __init__(
        self,
        inputs: int,
        channels: int,
        kernel_size: int,
        stride: tuple[int, int, int],
        pool_stride: tuple[int, ...],
        has_norm: bool,
    ):
        super().__init__()
        self.pool_stride = pool_stride
        self.conv = Convolution(
            inputs, channels, 3 * (kernel_size,), stride=stride, has_bias=not has_norm
        )
        self.norm = BatchNorm(channels) if has_norm else nn.Identity()

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        """Maps [b t h w c] to [b t' h' w' channels]."""
        x = self.norm(self.conv(clip))
        if self.pool_stride:
            x = max_pool(x, (3, 3, 3), self.pool_stride)
        return x


class LocalTokens(nn.Module):
    """Depthwise convolution and batch norm of the tokens of each time index.

    The class token stays as it is.

    Source: CvT (arXiv 2103.15808), section 3.2, for the maps of single frames.

    Args:
        width: width d of the tokens.
        grid: tokens along time, height and width.
        kernel_size: size of the kernel along height and width; odd.
        has_norm: whether there is a batch norm.
        init: fills the kernel.
    """

    def __init__(
        self,
        width: int,
        grid: tuple[int, int, int],
        kernel_size: int,
        has_norm: bool,
        init: Callable[[torch.Tensor], object],
    ):
        super().__init__()
        self.space = tuple(grid[1:])
        self.conv = Convolution(
            width, width, 2 * (kernel_size,), depthwise=True, has_bias=False, init=init
        )
        self.norm = BatchNorm(width) if has_norm else nn.Identity()

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Maps tokens [b 1+t·h·w d], the class token first, to the same shape."""
        class_token, patches = tokens[:, :1], tokens[:, 1:]
        maps = self.norm(self.conv(patches.reshape(-1, *self.space, patches.shape[-1])))
        return torch.cat([class_token, maps.reshape(patches.shape)], dim=1)
