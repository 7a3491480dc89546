"""What all models of transformer blocks share: their keywords, encoders and classifiers."""

import functools
from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import nn

from vivit_jax.layers.grid import token_grid
from vivit_jax.torch.layers import (
    NUM_CHANNELS,
    ONE_SEQUENCE,
    Attentions,
    Encoder,
    EncoderBlock,
)


class ModelOutput(NamedTuple):
    """The result of a forward pass.

    Attributes:
        logits: [b classes], or by head where the model has several.
        features: [b d], what the classifier sees.
    """

    logits: torch.Tensor | dict[str, torch.Tensor]
    features: torch.Tensor


class VideoTransformer(nn.Module):
    """Base of the models.

    Args:
        clip_shape: (t, h, w) in frames and pixels of the only clips that the model takes.
        num_classes, ...: as of `vivit_jax.models.transformer.VideoTransformer`.

    Raises:
        ValueError: the clip does not divide into whole patches.
    """

    # Keywords with other choices than other models have.
    CHOICES: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    # Published variants: name to keywords.
    PRESETS: ClassVar[Mapping[str, Mapping[str, object]]] = {}

    def __init__(
        self,
        clip_shape: tuple[int, int, int],
        *,
        num_classes: int | Mapping[str, int] = 400,
        hidden_size: int = 768,
        num_layers: int = 12,
        num_heads: int = 12,
        mlp_dim: int = 3072,
        tubelet_size: tuple[int, int, int] = (2, 16, 16),
        dropout_rate: float = 0.0,
        attention_dropout_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        gelu: str = 'tanh',
        layer_norm_eps: float = 1e-6,
    ):
        super().__init__()
        self.clip_shape = tuple(clip_shape)
        self.grid = token_grid(self.clip_shape, tubelet_size, 'tubelet', 0)
        self.hidden_size = hidden_size
        self.tubelet_size = tubelet_size
        self._block = {
            'width': hidden_size,
            'num_heads': num_heads,
            'mlp_dim': mlp_dim,
            'dropout_rate': dropout_rate,
            'attention_dropout_rate': attention_dropout_rate,
            'gelu': gelu,
            'layer_norm_eps': layer_norm_eps,
        }
        self._stack = {
            'num_layers': num_layers,
            'width': hidden_size,
            'dropout_rate': dropout_rate,
            'drop_path_rate': drop_path_rate,
            'layer_norm_eps': layer_norm_eps,
        }
        # Attribute by head, '' for the only one; no ModuleDict, which takes no head called 'type'.
        self._heads = {'': 'head'}
        if isinstance(num_classes, Mapping):
            self._heads = {head: f'head_{head}' for head in num_classes}
        else:
            num_classes = {'': num_classes}
        for head, name in self._heads.items():
            self.add_module(name, _classifier(hidden_size, num_classes[head]))

    @staticmethod
    def check(values: Mapping[str, object]):
        """Raises a ValueError where keywords do not fit each other."""

    def forward(self, clip: torch.Tensor) -> ModelOutput:
        """Classifies clips.

        Args:
            clip: float [b t h w c] in the range of the preprocessing, usually [-1, 1], RGB.

        Raises:
            ValueError: it has another shape than the model was made for.
        """
        shape = (*self.clip_shape, NUM_CHANNELS)
        if clip.shape[1:] != shape:
            raise ValueError(
                f'the clip has the shape {tuple(clip.shape)}, but this model was made for '
                f'[b t h w c] with (t, h, w, c)={shape}'
            )
        features = self._features(clip)
        logits = {head: getattr(self, name)(features) for head, name in self._heads.items()}
        return ModelOutput(logits.get('', logits), features)

    def _features(self, clip: torch.Tensor) -> torch.Tensor:
        """Clips [b t h w c] to features [b d]; each model has its own."""
        raise NotImplementedError

    def _encoder(
        self,
        *,
        grid: tuple[int, ...],
        pool: str,
        position: str,
        encoder: Callable[..., Encoder] = Encoder,
        block: Callable[..., EncoderBlock] = EncoderBlock,
        attentions: Attentions = ONE_SEQUENCE,
        num_layers: int | None = None,
        **keywords,
    ) -> Encoder:
        """An encoder as the model's keywords say; `keywords`, those of its blocks, win."""
        stack = self._stack if num_layers is None else {**self._stack, 'num_layers': num_layers}
        return encoder(
            functools.partial(block, **{**self._block, **keywords}),
            grid=grid,
            attentions=attentions,
            pool=pool,
            position=position,
            has_final_norm=keywords.get('norm', 'pre') == 'pre',
            **stack,
        )


def _classifier(width: int, num_classes: int) -> nn.Linear:
    layer = nn.Linear(width, num_classes)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
