"""Keywords of ViViT: A Video Vision Transformer (Arnab et al. 2021, arXiv 2103.15691)."""

import dataclasses
from typing import ClassVar, Literal, Self

from vivit_jax.layers.grid import cell_weights, uniform_frame_indices
from vivit_jax.layers.keywords import Keywords
from vivit_jax.layers.specification import TransformerSpecification


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViViT(TransformerSpecification):
    """The keywords that the four models share.

    Attributes:
        tokenizer: `'tubelet'`, or `'uniform_frames'`: patches of single frames, for which
            `tubelet_size` has t = 1.
        num_sampled_frames: number of frames that `'uniform_frames'` takes from a clip.
        pool: what the last encoder's tokens become: `'cls'`, the class token that every encoder
            gets; `'mean'` over the tokens, without class tokens; `'cls_mean'`, class token and mean
            of the others, one after the other; or `'cls_attention'` and `'attention'`, see
            `AttentionPool`, with and without class tokens.
        position: positions in each encoder: `'learned'`, `'sincos3d'` or `'none'`.
        pre_norm: whether a LayerNorm stands before the blocks of each encoder, as in CLIP.
    """

    tokenizer: Literal['tubelet', 'uniform_frames'] = 'tubelet'
    num_sampled_frames: int = 16
    pool: Literal['cls', 'mean', 'cls_mean', 'cls_attention', 'attention'] = 'cls'
    position: Literal['learned', 'sincos3d', 'none'] = 'learned'
    pre_norm: bool = False

    SMALL: ClassVar[Keywords] = {'position': 'sincos3d', 'pool': 'mean'}

    @classmethod
    def from_keywords(cls, keywords: Keywords, size: str | None = None) -> Self:
        """Like every model, but uniform frames ignore the tubelet length that a size names."""
        if keywords.get('tokenizer') == 'uniform_frames' and 'tubelet_size' not in keywords:
            _, *patch = cls.preset(size).get('tubelet_size', cls.tubelet_size)
            keywords = {**keywords, 'tubelet_size': (1, *patch)}
        return super().from_keywords(keywords, size)

    @property
    def has_class_token(self) -> bool:
        """Whether every encoder has a class token."""
        return self.pool.startswith('cls')

    def num_features(self, grid: tuple[int, int, int]) -> int:
        return self.hidden_size * (2 if self.pool == 'cls_mean' else 1)

    @property
    def patch_size(self) -> tuple[int, ...]:
        """(t, h, w) of a tubelet, or (h, w) of a patch of a single frame."""
        return self.tubelet_size[1 if self.tokenizer == 'uniform_frames' else 0 :]

    def check(self):
        super().check()
        self.check_at_least(1, 'num_sampled_frames')
        if self.tokenizer == 'uniform_frames' and self.tubelet_size[0] != 1:
            raise ValueError(
                f"tokenizer='uniform_frames' embeds single frames, so tubelet_size="
                f'{self.tubelet_size} must have t=1'
            )

    def grid(self, clip_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        time, height, width = super().grid(clip_shape)
        if self.tokenizer == 'uniform_frames':
            time = len(uniform_frame_indices(time, self.num_sampled_frames))
        return time, height, width


@dataclasses.dataclass(frozen=True, kw_only=True)
class Joint(ViViT):
    """Model 1: spatio-temporal attention."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FactorizedEncoder(ViViT):
    """Model 2: factorised encoder.

    Attributes:
        temporal_num_layers: blocks of the temporal encoder; 0: there is none.
        frame_pool: without a temporal encoder, what the vectors of the time indices become:
            `'mean'`; `'concat'`, one after the other; or `'change'`, which takes no vectors, but
            tells where in the frame tokens change, and how, see `pool_changes`. With a pool by
            attention, the query attends to the tokens of all time indices instead.
    """

    temporal_num_layers: int = 4
    frame_pool: Literal['mean', 'concat', 'change'] = 'mean'

    SMALL: ClassVar[Keywords] = {**ViViT.SMALL, 'num_layers': 2, 'temporal_num_layers': 2}
    TINY: ClassVar[Keywords] = {'temporal_num_layers': 1}
    own_parameters = (r'(cls_)?TemporalTransformer.*',)

    def check(self):
        super().check()
        self.check_at_least(0, 'temporal_num_layers')
        if self.frame_pool != 'mean' and (
            self.temporal_num_layers or self.pool.endswith('attention')
        ):
            raise ValueError(
                f'frame_pool={self.frame_pool!r} needs temporal_num_layers=0 and no pool by '
                f'attention, not temporal_num_layers={self.temporal_num_layers} and '
                f'pool={self.pool!r}'
            )

    def num_features(self, grid: tuple[int, int, int]) -> int:
        if self.frame_pool == 'change':
            return 3 * self.hidden_size * len(cell_weights(*grid[1:]))
        return super().num_features(grid) * (grid[0] if self.frame_pool == 'concat' else 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FactorizedSelfAttention(ViViT):
    """Model 3: factorised self-attention.

    Attributes:
        attention_order: the axis that attends first: `'space_time'` or `'time_space'`.
    """

    pool: Literal['mean', 'attention'] = 'mean'
    attention_order: Literal['space_time', 'time_space'] = 'space_time'


@dataclasses.dataclass(frozen=True, kw_only=True)
class FactorizedDotProduct(ViViT):
    """Model 4: factorised dot-product attention."""

    pool: Literal['mean', 'attention'] = 'mean'

    def check(self):
        super().check()
        self.check_even_heads()
