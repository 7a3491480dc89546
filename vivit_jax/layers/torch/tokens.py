"""`vivit_jax.layers.tokens` in PyTorch: from a clip to tokens, and from features to logits."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from torch import nn

from vivit_jax.layers.grid import sincos_positions
from vivit_jax.layers.specification import Specification


class ModelOutput(NamedTuple):
    """The result of a forward pass.

    Attributes:
        logits: [b classes], or a dict by head if the model has several heads.
        features: [b d], the input of the classifier.
        streams: of a model that sees RGB and depth, the logits of each of the two; else empty.
    """

    logits: torch.Tensor | dict[str, torch.Tensor]
    features: torch.Tensor
    streams: Mapping = MappingProxyType({})


class VideoModel(nn.Module):
    """Base class of the models: checks the clip, calls the model's `encode`, and classifies.

    Args:
        spec: sizes and rates.
        clip_shape: (t, h, w) in frames and pixels; the model takes only clips of this shape. If
            `spec.takes_units`, it also takes [b u t h w c], with any number of units and frames.

    Raises:
        ValueError: the clip does not divide into whole patches.
    """

    def __init__(self, spec: Specification, clip_shape: tuple[int, int, int]):
        super().__init__()
        self.spec = spec
        self.clip_shape = tuple(clip_shape)
        self.grid = spec.grid(self.clip_shape)
        # The attribute of each head; '' is the only head. A ModuleDict would refuse a head 'type'.
        classes = spec.num_classes
        self._heads = {'': 'head'}
        if isinstance(classes, Mapping):
            self._heads = {head: f'head_{head}' for head in classes}
        else:
            classes = {'': classes}
        for head, name in self._heads.items():
            self.add_module(name, _classifier(spec.num_features(self.grid), classes[head]))

    def forward(self, clip: torch.Tensor) -> ModelOutput:
        """Classifies clips.

        Args:
            clip: float [b t h w c], or [b u t h w c] if the model takes units, in the range of the
                preprocessing, usually [-1, 1], with `spec.num_channels` channels.

        Raises:
            ValueError: the clip has another shape than the model was made for.
        """
        shape = (*self.clip_shape, self.spec.num_channels)
        has_units = self.spec.takes_units and clip.ndim == 6
        if clip.shape[3 if has_units else 1 :] != shape[has_units:]:
            raise ValueError(
                f'the clip has the shape {tuple(clip.shape)}, but this model was made for '
                f'[b t h w c] with (t, h, w, c)={shape}'
            )
        features = self.encode(clip)
        logits = {head: getattr(self, name)(features) for head, name in self._heads.items()}
        return ModelOutput(logits.get('', logits), features)

    def encode(self, clip: torch.Tensor) -> torch.Tensor:
        """Maps clips [b t h w c] to features [b d]."""
        raise NotImplementedError


class Tokenizer(nn.Module):
    """Linear projection of non-overlapping patches.

    Source: ViViT (arXiv 2103.15691), section 3.2 and figures 2 and 3.

    Args:
        hidden_size: width d of the tokens.
        patch_size: (t, h, w) frames and pixels, or (h, w) pixels of a frame.
        channels: number of channels of the clip.
    """

    def __init__(self, hidden_size: int, patch_size: tuple[int, ...], channels: int):
        super().__init__()
        self.patch_size = patch_size
        self.projection = linear(math.prod(patch_size) * channels, hidden_size)

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        """Maps a float clip [b t h w c], of whole patches, to tokens [b t' h' w' d]."""
        time, height, width = (1, 1, *self.patch_size)[-3:]
        patches = rearrange(
            clip,
            'b (t pt) (h ph) (w pw) c -> b t h w (pt ph pw c)',
            pt=time,
            ph=height,
            pw=width,
        )
        return self.projection(patches)


class PositionEmbedding(nn.Module):
    """Adds positions to tokens [... n d] or [... t n d].

    Args:
        kind: `'learned'`, a table [1 n d] or [1 t·n d], `'sincos3d'`, or `'none'`.
        grid: the number of places along each axis.
        width: width d of the tokens.
        token_axes: how many axes of the tokens have positions: 1 for n, 2 for t and n.
        has_class_token: whether the first token is a class token; `'sincos3d'` adds zero to it.
    """

    def __init__(
        self, kind: str, grid: tuple[int, ...], width: int, token_axes: int, has_class_token: bool
    ):
        super().__init__()
        self.token_axes = token_axes
        before = int(has_class_token)
        if kind == 'learned':
            self.table = nn.Parameter(torch.empty(1, before + math.prod(grid), width))
            nn.init.normal_(self.table, std=0.02)  # from BERT
        elif kind == 'sincos3d':
            table = np.pad(sincos_positions(grid, width), ((before, 0), (0, 0)))
            self.register_buffer('table', torch.from_numpy(table), persistent=False)
        else:
            self.table = None

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        if self.table is None:
            return tokens
        return tokens + self.table.reshape(tokens.shape[-1 - self.token_axes :])


def linear(inputs: int, outputs: int, bias_std: float = 0.0, has_bias: bool = True) -> nn.Linear:
    """A linear layer with the initial values of the JAX models: the weight is Xavier uniform."""
    layer = nn.Linear(inputs, outputs, bias=has_bias)
    nn.init.xavier_uniform_(layer.weight)
    if has_bias:
        nn.init.normal_(layer.bias, std=bias_std)
    return layer


def _classifier(width: int, num_classes: int) -> nn.Linear:
    layer = nn.Linear(width, num_classes)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
