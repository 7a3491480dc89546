"""ConViViT in PyTorch: the model of `vivit_jax.models.convivit.model`."""

import itertools

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from vivit_jax.layers.torch.convolution import BatchNorm, Convolution, lecun_normal
from vivit_jax.layers.torch.tokens import Tokenizer, VideoModel
from vivit_jax.layers.torch.transformer import Encoder, layer_norm
from vivit_jax.models.convivit import specification
from vivit_jax.models.vivit.torch import FactorizedDotProductBlock, FactorizedSelfAttentionBlock

_BLOCKS = {
    'self_attention': FactorizedSelfAttentionBlock,
    'dot_product': FactorizedDotProductBlock,
}


class ConViViT(VideoModel):
    """A CNN over the clip, patches of the CNN's channels, an encoder, the mean over tokens."""

    def __init__(self, spec: specification.ConViViT, clip_shape: tuple[int, int, int]):
        super().__init__(spec, clip_shape)
        channels = [spec.num_channels, *[spec.cnn_channels] * spec.cnn_blocks]
        self.cnn = nn.Sequential(
            *(CnnBlock(*pair, spec.cnn_conv5) for pair in itertools.pairwise(channels))
        )
        self.tokenizer = Tokenizer(spec.hidden_size, spec.patch_size, channels[-1])
        self.embedding_norm = layer_norm(spec)
        self.embedding_position = PositionConvolution(spec.hidden_size)
        block = _BLOCKS[spec.factorization]
        self.encoder = Encoder(spec, self.grid, 'none', token_axes=2, block=block, pool='mean')

    def encode(self, clip: torch.Tensor) -> torch.Tensor:
        stride = self.spec.cnn_stride
        if stride > 1:
            clip = F.avg_pool3d(clip.movedim(-1, 1), (1, stride, stride)).movedim(1, -1)
        tokens = self.embedding_norm(self.tokenizer(self.cnn(clip)))
        tokens = self.embedding_position(tokens)
        return self.encoder(rearrange(tokens, 'b t h w d -> b t (h w) d'))


class PositionConvolution(nn.Module):
    """Adds a depthwise 3x3x3 convolution of [b t h w c]; its zero padding encodes positions.

    Source: UniFormer (arXiv 2201.04676), section 3.4, dynamic position embedding.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.conv = Convolution(channels, channels, (3, 3, 3), depthwise=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv(x)


class CnnBlock(nn.Module):
    """`S(x) + W2 GELU(BN(Conv5x5x5(GELU(W1 BN(x)))))` of `x = clip + DepthwiseConv3x3x3(clip)`.

    S is the identity if the number of channels stays the same, else a linear map without bias.

    Source: ConViViT (Dokkar et al. 2023), after the local blocks of UniFormer (arXiv 2201.04676).

    Args:
        inputs: number of channels of the clip.
        channels: number of channels of the result.
        conv5: `'depthwise'` or `'dense'`.
    """

    def __init__(self, inputs: int, channels: int, conv5: str):
        super().__init__()
        self.position = PositionConvolution(inputs)
        self.norm_in = BatchNorm(inputs)
        self.dense_in = _dense(inputs, channels)
        self.conv = Convolution(channels, channels, (5, 5, 5), depthwise=conv5 == 'depthwise')
        self.norm = BatchNorm(channels)
        self.dense_out = _dense(channels, channels)
        is_wider = inputs != channels
        self.shortcut = _dense(inputs, channels, has_bias=False) if is_wider else nn.Identity()

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        """Maps [b t h w c] to [b t h w channels]."""
        clip = self.position(clip)
        x = self.conv(F.gelu(self.dense_in(self.norm_in(clip))))
        return self.shortcut(clip) + self.dense_out(F.gelu(self.norm(x)))


def _dense(inputs: int, outputs: int, has_bias: bool = True) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=has_bias)
    lecun_normal(layer.weight)
    if has_bias:
        nn.init.zeros_(layer.bias)
    return layer
