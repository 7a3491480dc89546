"""RPE-STDT (Ma et al., a chapter of a thesis of 2023-24): frames by a ViT, then by importance."""

import functools
from collections.abc import Mapping

import torch

from vivit_jax.models.choices import RPE_STDT_CHOICES, RPE_STDT_PRESETS, check_rpe_stdt
from vivit_jax.torch.layers import SelfAttention, Tokenizer
from vivit_jax.torch.relative_position import ClipPositionEmbedding, RelativePosition
from vivit_jax.torch.token_selection import SelectingBlock, SelectiveEncoder
from vivit_jax.torch.transformer import VideoTransformer


class RpeStdt(VideoTransformer):
    """A spatial encoder for every frame, then a temporal one over their class tokens.

    Args:
        clip_shape, ...: see `VideoTransformer`.
        pos_embed, ...: as of `vivit_jax.models.rpe_stdt.RpeStdt`.
    """

    CHOICES = RPE_STDT_CHOICES
    PRESETS = RPE_STDT_PRESETS
    check = staticmethod(check_rpe_stdt)

    def __init__(
        self,
        clip_shape: tuple[int, int, int],
        *,
        num_classes: int | Mapping[str, int] = 101,
        tubelet_size: tuple[int, int, int] = (1, 16, 16),
        pos_embed: str = 'rpe',
        rpe_terms: str = 'both',
        rpe_function: str = 'sectioned',
        rpe_method: str = 'product',
        rpe_ratio: float = 1.5,
        shared_heads: bool = True,
        temporal: str = 'transformer',
        temporal_pos: str = 'rpe',
        temporal_num_layers: int = 4,
        temporal_num_heads: int = 8,
        temporal_head_dim: int = 64,
        light: bool = True,
        subsample: str = 'topk',
        subsample_layers: tuple[int, ...] = (1, 3),
        **keywords,
    ):
        super().__init__(clip_shape, num_classes=num_classes, tubelet_size=tubelet_size, **keywords)
        time, *space = self.grid
        self.tokenizer = Tokenizer(self.hidden_size, tubelet_size, 'tubelet', 0)
        attention = SelfAttention
        if pos_embed == 'rpe' and rpe_terms != 'none':
            relative = functools.partial(
                RelativePosition,
                tuple(space),
                ratio=rpe_ratio,
                function=rpe_function,
                method=rpe_method,
                terms=rpe_terms,
                shared_heads=shared_heads,
            )
            attention = functools.partial(SelfAttention, relative=relative)
        self.spatial_encoder = self._encoder(
            grid=tuple(space),
            pool='cls',
            position='learned' if pos_embed == 'frame' else 'none',
            attention=attention,
        )
        if pos_embed == 'absolute':
            self.spatial_encoder.position = ClipPositionEmbedding(self.grid, self.hidden_size)
        self.temporal_encoder = None
        if temporal == 'none':
            return
        attention = {}
        if temporal_pos == 'rpe':
            attention['relative'] = functools.partial(RelativePosition, (time,))
        if light:
            attention |= {'head_dim': temporal_head_dim, 'has_bias': False}
        self.temporal_encoder = self._encoder(
            encoder=functools.partial(
                SelectiveEncoder, subsample=subsample, subsample_layers=subsample_layers
            ),
            block=SelectingBlock,
            grid=(time,),
            pool='cls',
            position='learned' if temporal_pos == 'absolute' else 'none',
            num_layers=temporal_num_layers,
            num_heads=temporal_num_heads,
            mlp_dim=self.hidden_size if light else self._block['mlp_dim'],
            attention=functools.partial(SelfAttention, **attention),
        )

    def _features(self, clip: torch.Tensor) -> torch.Tensor:
        frames = self.spatial_encoder(self.tokenizer(clip).flatten(2, 3))
        if self.temporal_encoder is None:
            return frames.mean(dim=1)
        return self.temporal_encoder(frames)
