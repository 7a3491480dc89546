"""RPE-STDT in PyTorch: the model of `vivit_jax.models.rpe_stdt.model`."""

import functools
import math

import torch
from einops import rearrange
from torch import nn

from vivit_jax.layers.torch.tokens import Tokenizer, VideoModel
from vivit_jax.layers.torch.transformer import Encoder, EncoderBlock, SelfAttention
from vivit_jax.models.rpe_stdt import specification
from vivit_jax.models.rpe_stdt.torch_relative_position import RelativePosition
from vivit_jax.models.rpe_stdt.torch_temporal import TemporalEncoder


class RpeStdt(VideoModel):
    """A spatial encoder for every frame, then a temporal encoder over the frames' class tokens."""

    def __init__(self, spec: specification.RpeStdt, clip_shape: tuple[int, int, int]):
        super().__init__(spec, clip_shape)
        time, *space = self.grid
        self.tokenizer = Tokenizer(spec.hidden_size, spec.tubelet_size, spec.num_channels)
        self.spatial_encoder = self._make_spatial_encoder(tuple(space))
        if spec.pos_embed == 'absolute':
            self.spatial_encoder.position = ClipPositionEmbedding(self.grid, spec.hidden_size)
        self.temporal_encoder = None
        if spec.temporal == 'transformer':
            self.temporal_encoder = TemporalEncoder(spec, time)

    def encode(self, clip: torch.Tensor) -> torch.Tensor:
        tokens = rearrange(self.tokenizer(clip), 'b t h w d -> b t (h w) d')
        frames = self.spatial_encoder(tokens)
        if self.temporal_encoder is None:
            return frames.mean(dim=1)
        return self.temporal_encoder(frames)

    def _make_spatial_encoder(self, grid: tuple[int, int]) -> Encoder:
        spec = self.spec
        attention = functools.partial(SelfAttention, num_heads=spec.num_heads)
        if spec.is_relative:
            relative = functools.partial(
                RelativePosition,
                grid,
                ratio=spec.rpe_ratio,
                function=spec.rpe_function,
                method=spec.rpe_method,
                terms=spec.rpe_terms,
                shared_heads=spec.shared_heads,
            )
            attention = functools.partial(attention, relative=relative)
        return Encoder(
            spec,
            grid,
            'learned' if spec.pos_embed == 'frame' else 'none',
            block=functools.partial(EncoderBlock, attention=attention),
            pool='cls',
        )


class ClipPositionEmbedding(nn.Module):
    """Adds learned positions to frames [b t 1+n d] whose first token is a class token.

    The table [1 1+t·n d] has one row that all class tokens share, then a row for every other token
    of the clip.
    """

    def __init__(self, grid: tuple[int, int, int], width: int):
        super().__init__()
        self.time = grid[0]
        self.table = nn.Parameter(torch.empty(1, 1 + math.prod(grid), width))
        nn.init.normal_(self.table, std=0.02)  # from BERT

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        for_class = self.table[:, :1].expand(self.time, -1, -1)
        for_places = self.table[0, 1:].unflatten(0, (self.time, -1))
        return tokens + torch.cat([for_class, for_places], dim=1)
