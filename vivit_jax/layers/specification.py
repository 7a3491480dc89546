"""The keywords that all models have; imports neither JAX nor PyTorch, because both forms use it."""

import dataclasses
import math
import re
from collections.abc import Mapping
from typing import Literal

from vivit_jax.layers.keywords import SIZES, CheckedKeywords, Keywords


@dataclasses.dataclass(frozen=True, kw_only=True)
class Specification(CheckedKeywords):
    """The keywords of `create_model`; each model has a subclass with further keywords.

    Attributes:
        num_classes: number of classes; if there are several heads, a dict head -> number.
        modality: what the model sees: `'rgb'`; `'depth'`; or `'rgbd'`, a model for each of the two,
            whose scores are averaged, see `Fusion`.
        depth_channels: channels of a depth clip: 3, the depth three times, as a model for images
            wants it, or 1.
        fusion: mean over RGB and depth: of the probabilities, `'softmax_mean'`, or of the logits,
            `'logit_mean'`.
        dropout_rate: dropout; where it acts, the model says.
        remat: which activations JAX computes twice to save memory, see `REMAT_POLICIES`.
        dtype: type that JAX computes in; parameters, softmax and logits are float32.
    """

    num_classes: int | Mapping[str, int] = dataclasses.field(default=400, hash=False)
    modality: Literal['rgb', 'depth', 'rgbd'] = 'rgb'
    depth_channels: Literal[3, 1] = 3
    fusion: Literal['softmax_mean', 'logit_mean'] = 'softmax_mean'
    dropout_rate: float = 0.0
    remat: Literal['none', 'block', 'dots'] = 'none'
    dtype: Literal['float32', 'bfloat16', 'float16', 'float64'] = 'float32'

    def num_features(self, grid: tuple[int, int, int]) -> int:
        """Width of the features that the classifier takes, of a single stream; see `grid`."""
        raise NotImplementedError

    @property
    def num_channels(self) -> int:
        """Channels of the clips of a single stream."""
        return self.depth_channels if self.modality == 'depth' else 3

    @property
    def streams(self) -> dict[str, 'Specification']:
        """The specification for each kind of clip that the model sees: `rgb`, `depth` or both."""
        if self.modality != 'rgbd':
            return {self.modality: self}
        return {name: dataclasses.replace(self, modality=name) for name in ('rgb', 'depth')}

    def check(self):
        """Raises a ValueError if values are out of range or do not fit each other."""
        super().check()
        classes = self.num_classes
        counts = classes.values() if isinstance(classes, Mapping) else (classes,)
        if not counts or min(counts) < 1:
            raise ValueError(f'num_classes={classes} must be at least 1, for one head or more')
        self.check_rates('dropout_rate')

    def check_rates(self, *keywords: str):
        """Raises a ValueError if one of the keywords is no rate."""
        for keyword in keywords:
            if not 0 <= getattr(self, keyword) < 1:
                raise ValueError(f'{keyword}={getattr(self, keyword)} must lie in [0, 1)')

    def grid(self, clip_shape: tuple[int, ...]) -> tuple[int, int, int]:
        """Places along time, height and width that a clip of (t, h, w) frames and pixels becomes.

        If the model takes units, the clip may also be (u, t, h, w).

        Raises:
            ValueError: the model cannot take such a clip.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerSpecification(Specification):
    """The keywords of models that are transformers over tubelets.

    Attributes:
        hidden_size: width d of the tokens.
        num_layers: blocks of the encoder; if there are two, of the spatial encoder.
        num_heads: attention heads; must divide `hidden_size`.
        mlp_dim: hidden width of the MLPs.
        tubelet_size: (t, h, w) frames and pixels of the clip that make a token.
        dropout_rate: dropout after embeddings, attention and both MLP layers.
        attention_dropout_rate: dropout of attention weights.
        drop_path_rate: stochastic depth of the last block, see `Encoder`.
        gelu: `'tanh'`, the approximation in JAX's ViTs; `'exact'`, as in PyTorch's ViTs; or
            `'quick'`, the approximation in OpenAI's CLIP.
        layer_norm_eps: added to the variance in a LayerNorm.
        knn_ratio: share of the tokens that each token attends to, above 0: the tokens with the
            largest logits, see `num_neighbours`. 1 is ordinary attention.
        attention_implementation: how JAX computes attention, see `dot_product_attention`.
        scan_layers: whether JAX compiles one block for all layers, see `run_blocks`.
    """

    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    mlp_dim: int = 3072
    tubelet_size: tuple[int, int, int] = (2, 16, 16)
    attention_dropout_rate: float = 0.0
    drop_path_rate: float = 0.0
    gelu: Literal['tanh', 'exact', 'quick'] = 'tanh'
    layer_norm_eps: float = 1e-6
    knn_ratio: float = 1.0

    attention_implementation: Literal['auto', 'einsum', 'chunked', 'cudnn', 'pallas'] = 'auto'
    scan_layers: bool = False

    @classmethod
    def preset(cls, size: str | None) -> Keywords:
        """The keywords of one of `PRESETS`, or of `'B/16x2'`: encoder/patch x tubelet length."""
        match = re.fullmatch(r'(\w+)/(\d+)x(\d+)', size or '')
        if match and match[1] in SIZES:
            patch, length = int(match[2]), int(match[3])
            return {**SIZES[match[1]], 'tubelet_size': (length, patch, patch)}
        if size and size not in cls.PRESETS:
            presets = f', and none of {", ".join(cls.PRESETS)}' if cls.PRESETS else ''
            raise ValueError(
                f"size={size!r} is not of the form 'B/16x2' (encoder/patch x tubelet length) with "
                f'one of the encoders {", ".join(SIZES)}{presets}'
            )
        return super().preset(size)

    def num_features(self, grid: tuple[int, int, int]) -> int:
        return self.hidden_size

    def check(self):
        super().check()
        self.check_at_least(1, 'hidden_size', 'num_heads', 'mlp_dim')
        self.check_at_least(0, 'num_layers', 'layer_norm_eps')
        if len(self.tubelet_size) != 3 or min(self.tubelet_size) < 1:
            raise ValueError(f'tubelet_size={self.tubelet_size} must be (t, h, w), each from 1')
        self.check_heads()
        self.check_rates('attention_dropout_rate', 'drop_path_rate')
        if not 0 < self.knn_ratio <= 1:
            raise ValueError(f'knn_ratio={self.knn_ratio} must be above 0 and at most 1')
        if self.knn_ratio < 1 and self.attention_implementation in ('cudnn', 'pallas'):
            raise ValueError(
                f'attention_implementation={self.attention_implementation!r} has no k-NN '
                "attention: set knn_ratio to 1, or take 'auto', 'einsum' or 'chunked'"
            )
        if self.attention_dropout_rate and self.attention_implementation in ('cudnn', 'pallas'):
            raise ValueError(
                f'attention_implementation={self.attention_implementation!r} has no dropout: '
                "set attention_dropout_rate to 0, or take 'auto', 'einsum' or 'chunked'"
            )

    def check_heads(self):
        """Raises a ValueError if the heads do not divide the width of the tokens."""
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f'num_heads={self.num_heads} must divide hidden_size={self.hidden_size}'
            )

    def grid(self, clip_shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Tokens along time, height and width of a clip of (t, h, w) frames and pixels.

        Raises:
            ValueError: the clip does not divide into whole tubelets.
        """
        names = ('frames', 'height', 'width')
        for name, size, part in zip(names, clip_shape, self.tubelet_size, strict=True):
            if size % part:
                raise ValueError(
                    f'a clip with {name}={size} does not divide into tubelets of '
                    f'(t, h, w)={self.tubelet_size}: choose {name} as a multiple of {part}'
                )
        return tuple(size // part for size, part in zip(clip_shape, self.tubelet_size, strict=True))


def num_neighbours(knn_ratio: float, num_tokens: int) -> int:
    """How many of n tokens a token attends to: `max(1, ⌊knn_ratio · n⌋)`.

    Source: k-NN attention, KVT (arXiv 2106.00515), section 3.2, with a share of n as k.
    """
    # 0.29 · 100 is 28.999999999999996 in floating point.
    return max(1, math.floor(knn_ratio * num_tokens + 1e-9))
