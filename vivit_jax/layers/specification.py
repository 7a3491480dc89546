"""The keywords that all models have; imports neither JAX nor PyTorch, because both forms use it."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from vivit_jax.layers.keywords import CheckedKeywords


@dataclasses.dataclass(frozen=True, kw_only=True)
class Specification(CheckedKeywords):
    """The keywords of `create_model`; each model has a subclass with further keywords.

    Attributes:
        num_classes: number of classes; if there are several heads, a dict head -> number.
        hidden_size: width d of the tokens.
        num_layers: blocks of the encoder; if there are two, of the spatial encoder.
        num_heads: attention heads; must divide `hidden_size`.
        mlp_dim: hidden width of the MLPs.
        tubelet_size: (t, h, w) frames and pixels of the clip that make a token.
        dropout_rate: dropout after embeddings, attention and both MLP layers.
        attention_dropout_rate: dropout of attention weights.
        drop_path_rate: stochastic depth of the last block, see `Encoder`.
        gelu: `'tanh'`, the approximation in JAX's ViTs, or `'exact'`, as in PyTorch's ViTs.
        layer_norm_eps: added to the variance in a LayerNorm.
        attention_implementation: how JAX computes attention, see `dot_product_attention`.
        remat: which activations JAX computes twice to save memory, see `REMAT_POLICIES`.
        scan_layers: whether JAX compiles one block for all layers, see `run_blocks`.
        dtype: type that JAX computes in; parameters, softmax and logits are float32.
    """

    num_classes: int | Mapping[str, int] = dataclasses.field(default=400, hash=False)
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    mlp_dim: int = 3072
    tubelet_size: tuple[int, int, int] = (2, 16, 16)
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    drop_path_rate: float = 0.0
    gelu: Literal['tanh', 'exact'] = 'tanh'
    layer_norm_eps: float = 1e-6

    attention_implementation: Literal['auto', 'einsum', 'chunked', 'cudnn', 'pallas'] = 'auto'
    remat: Literal['none', 'block', 'dots'] = 'none'
    scan_layers: bool = False
    dtype: Literal['float32', 'bfloat16', 'float16', 'float64'] = 'float32'

    def check(self):
        """Raises a ValueError if values are out of range or do not fit each other."""
        super().check()
        classes = self.num_classes
        counts = classes.values() if isinstance(classes, Mapping) else (classes,)
        if not counts or min(counts) < 1:
            raise ValueError(f'num_classes={classes} must be at least 1, for one head or more')
        self.check_at_least(1, 'hidden_size', 'num_heads', 'mlp_dim')
        self.check_at_least(0, 'num_layers')
        if len(self.tubelet_size) != 3 or min(self.tubelet_size) < 1:
            raise ValueError(f'tubelet_size={self.tubelet_size} must be (t, h, w), each from 1')
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f'num_heads={self.num_heads} must divide hidden_size={self.hidden_size}'
            )
        for rate in ('dropout_rate', 'attention_dropout_rate', 'drop_path_rate'):
            if not 0 <= getattr(self, rate) < 1:
                raise ValueError(f'{rate}={getattr(self, rate)} must lie in [0, 1)')
        if self.attention_dropout_rate and self.attention_implementation in ('cudnn', 'pallas'):
            raise ValueError(
                f'attention_implementation={self.attention_implementation!r} has no dropout: '
                "set attention_dropout_rate to 0, or take 'auto', 'einsum' or 'chunked'"
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
