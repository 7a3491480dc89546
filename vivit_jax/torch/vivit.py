"""ViViT: A Video Vision Transformer (Arnab et al. 2021, arXiv 2103.15691).

The four models of `vivit_jax.models.vivit` in PyTorch: one tokenizer, one block, one encoder.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch

from vivit_jax.layers.grid import token_grid
from vivit_jax.torch.layers import HEADS_SHARED, SPACE_THEN_TIME, Attentions, Tokenizer
from vivit_jax.torch.transformer import VideoTransformer

TIME_THEN_SPACE: Attentions = (('time',), ('space',))


class ViViT(VideoTransformer):
    """What the four models share: the choice of tokens, of class tokens and of positions.

    Args:
        clip_shape, ...: see `VideoTransformer`.
        tokenizer, ...: as of `vivit_jax.models.vivit.ViViT`.
    """

    def __init__(
        self,
        clip_shape: tuple[int, int, int],
        *,
        tokenizer: str = 'tubelet',
        num_sampled_frames: int = 16,
        pool: str = 'cls',
        position: str = 'learned',
        **keywords,
    ):
        super().__init__(clip_shape, **keywords)
        self.tokenizer = Tokenizer(
            self.hidden_size, self.tubelet_size, tokenizer, num_sampled_frames
        )
        self.grid = token_grid(self.clip_shape, self.tubelet_size, tokenizer, num_sampled_frames)
        self._kind = {'pool': pool, 'position': position}


class Joint(ViViT):
    """Model 1: every token of the clip attends to every other.

    Source: section 3.3, model 1.
    """

    def __init__(self, clip_shape: tuple[int, int, int], **keywords):
        super().__init__(clip_shape, **keywords)
        self.encoder = self._encoder(**self._kind, grid=self.grid)

    def _features(self, clip: torch.Tensor) -> torch.Tensor:
        return self.encoder(self.tokenizer(clip).flatten(1, 3))


class FactorizedEncoder(ViViT):
    """Model 2: a spatial encoder for every time index, then a temporal one over their summaries.

    Source: section 3.3, model 2; `temporal_num_layers=0` is the frame-average baseline of table 4.

    Args:
        clip_shape, ...: see `ViViT`.
        temporal_num_layers: blocks of the temporal encoder; 0 takes the mean over time.
    """

    def __init__(
        self, clip_shape: tuple[int, int, int], *, temporal_num_layers: int = 4, **keywords
    ):
        super().__init__(clip_shape, **keywords)
        time, *space = self.grid
        self.spatial_encoder = self._encoder(**self._kind, grid=tuple(space))
        self.temporal_encoder = None
        if temporal_num_layers:
            self.temporal_encoder = self._encoder(
                **self._kind, grid=(time,), num_layers=temporal_num_layers
            )

    def _features(self, clip: torch.Tensor) -> torch.Tensor:
        frames = self.spatial_encoder(self.tokenizer(clip).flatten(2, 3))
        return (
            frames.mean(dim=1) if self.temporal_encoder is None else self.temporal_encoder(frames)
        )


class _FactorizedBlock(ViViT):
    """Models 3 and 4: blocks whose attentions run along space or along time."""

    CHOICES: ClassVar[Mapping[str, tuple[str, ...]]] = {'pool': ('mean',)}

    def __init__(
        self,
        clip_shape: tuple[int, int, int],
        attentions: Attentions,
        *,
        pool: str = 'mean',
        **keywords,
    ):
        super().__init__(clip_shape, pool=pool, **keywords)
        self.encoder = self._encoder(**self._kind, grid=self.grid, attentions=attentions)

    def _features(self, clip: torch.Tensor) -> torch.Tensor:
        return self.encoder(self.tokenizer(clip).flatten(2, 3))


class FactorizedSelfAttention(_FactorizedBlock):
    """Model 3: in every block attention along space, then another one along time.

    Source: section 3.3, model 3.

    Args:
        clip_shape, ...: see `ViViT`.
        attention_order: `'space_time'`, or `'time_space'`.
    """

    def __init__(
        self,
        clip_shape: tuple[int, int, int],
        *,
        attention_order: str = 'space_time',
        **keywords,
    ):
        is_space_first = attention_order == 'space_time'
        attentions = SPACE_THEN_TIME if is_space_first else TIME_THEN_SPACE
        super().__init__(clip_shape, attentions, **keywords)


class FactorizedDotProduct(_FactorizedBlock):
    """Model 4: half of the heads attend along time, the other half along space.

    Source: section 3.3, model 4, with time first, as in the original implementation and its
    checkpoints (the paper writes space first).
    """

    def __init__(self, clip_shape: tuple[int, int, int], **keywords):
        super().__init__(clip_shape, HEADS_SHARED, **keywords)
