"""Keywords of RPE-STDT.

Source: Yujun Ma, Deep learning for action recognition in videos (PhD thesis, Massey University,
2024), chapter 3; below, "Ma 2024".
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Literal

from vivit_jax.layers.keywords import Keywords
from vivit_jax.layers.specification import TransformerSpecification


@dataclasses.dataclass(frozen=True, kw_only=True)
class RpeStdt(TransformerSpecification):
    """A spatial encoder for every frame, then a temporal encoder that drops frames.

    `rpe_*`, `shared_heads`, `remat` and `scan_layers` affect the spatial encoder only; the relative
    positions of the temporal encoder have the defaults. The text of Ma 2024 says 8 spatial blocks,
    but its costs and parameters belong to 12. `stdt_l8_full` in `PRESETS` has 8.

    Attributes:
        pos_embed: positions in the spatial encoder: `'rpe'`, relative; `'absolute'`, a learned
            table with a row for every token of the clip; `'frame'`, the table of a ViT, the same
            for all frames; or `'none'`.
        rpe_terms: terms of the relative positions, see `RelativePosition`; `'none'` is the same as
            `pos_embed='none'`.
        rpe_function: how offsets become cluster numbers, see `pair_clusters`.
        rpe_method: how the axes are combined, see `pair_clusters`.
        rpe_ratio: reach of the clusters, see `pair_clusters`; at least 0.5.
        shared_heads: whether all heads share one pair of tables.
        temporal: `'transformer'`, or `'none'`: the mean of the frames' class tokens.
        temporal_pos: positions in the temporal encoder: `'rpe'`, `'absolute'`, a learned table, or
            `'none'`.
        temporal_num_layers: blocks of the temporal encoder.
        temporal_num_heads: heads of the temporal blocks.
        temporal_head_dim: width of a head of light blocks.
        light: whether temporal blocks have MLPs as wide as the tokens, and queries, keys and values
            without bias; otherwise temporal blocks are like spatial blocks.
        subsample: how blocks halve the frames: `'topk'`, `'max'`, `'avg'`, `'conv'` or `'none'`,
            see `TemporalEncoder`.
        subsample_layers: temporal blocks that halve the frames, counted from zero.
    """

    num_classes: int | dict[str, int] = dataclasses.field(default=101, hash=False)
    tubelet_size: tuple[int, int, int] = (1, 16, 16)
    pos_embed: Literal['rpe', 'absolute', 'frame', 'none'] = 'rpe'
    rpe_terms: Literal['both', 'query', 'key', 'none'] = 'both'
    rpe_function: Literal['sectioned', 'clip'] = 'sectioned'
    rpe_method: Literal['product', 'euclidean'] = 'product'
    rpe_ratio: float = 1.5
    shared_heads: bool = True
    temporal: Literal['transformer', 'none'] = 'transformer'
    temporal_pos: Literal['rpe', 'absolute', 'none'] = 'rpe'
    temporal_num_layers: int = 4
    temporal_num_heads: int = 8
    temporal_head_dim: int = 64
    light: bool = True
    subsample: Literal['topk', 'max', 'avg', 'conv', 'none'] = 'topk'
    subsample_layers: tuple[int, ...] = (1, 3)

    # Other models that Ma 2024 compares with.
    PRESETS: ClassVar[Mapping[str, Keywords]] = {
        'stdt_l8_full': {
            'num_layers': 8,
            'pos_embed': 'absolute',
            'temporal_pos': 'absolute',
            'light': False,
            'subsample': 'none',
        },
        'spatial_only': {'pos_embed': 'frame', 'temporal': 'none'},
    }
    SMALL: ClassVar[Keywords] = {
        'num_layers': 2,
        'temporal_num_layers': 2,
        'temporal_num_heads': 4,
        'temporal_head_dim': 24,
        'subsample_layers': (1,),
    }
    TINY: ClassVar[Keywords] = {
        'temporal_num_layers': 2,
        'temporal_num_heads': 2,
        'temporal_head_dim': 6,
        'subsample_layers': (1,),
    }
    EXTENDS = ('vivit_fe',)
    own_parameters = ('.+/relative_position/.+', r'(cls_)?TemporalTransformer.*')
    TORCH_NAMES = (
        (r'TemporalTransformer/subsample_(\d+)', r'temporal_encoder.subsample_\1', 'convolution'),
        ('posembed_input', 'spatial_encoder.position', 'positions'),
        (
            r'SpatialTransformer/encoderblock_(\d+)/.+/relative_position',
            r'spatial_encoder.blocks.\1.attention.relative',
            'relative_position',
        ),
        (
            r'TemporalTransformer/encoderblock_(\d+)/.+/relative_position',
            r'temporal_encoder.blocks.\1.attention.relative',
            'relative_position',
        ),
    )

    @property
    def is_relative(self) -> bool:
        """Whether the spatial encoder has relative positions."""
        return self.pos_embed == 'rpe' and self.rpe_terms != 'none'

    def check(self):
        super().check()
        if not self.rpe_ratio >= 0.5:
            raise ValueError(
                f'rpe_ratio={self.rpe_ratio} must be at least 0.5, which tells three offsets apart'
            )
        if self.is_relative and self.attention_implementation not in ('auto', 'einsum'):
            raise ValueError(
                f'attention_implementation={self.attention_implementation!r} has no relative '
                "positions: take 'auto' or 'einsum', or another pos_embed"
            )
        if self.temporal == 'transformer':
            self._check_temporal_encoder()

    def _check_temporal_encoder(self):
        for name in ('temporal_num_layers', 'temporal_num_heads', 'temporal_head_dim'):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name}={getattr(self, name)} must be at least 1; temporal='none' goes without"
                )
        if not self.light and self.hidden_size % self.temporal_num_heads:
            raise ValueError(
                f'temporal_num_heads={self.temporal_num_heads} must divide '
                f'hidden_size={self.hidden_size}'
            )
        layers = self.subsample_layers if self.subsample != 'none' else ()
        if set(layers) - set(range(self.temporal_num_layers)):
            raise ValueError(
                f'subsample_layers={layers} must be among the '
                f'temporal_num_layers={self.temporal_num_layers}, counted from zero'
            )
