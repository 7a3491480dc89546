"""ViViT: A Video Vision Transformer (Arnab et al. 2021, arXiv 2103.15691).

The four models of `vivit_jax.models.vivit` in PyTorch: one tokenizer, one block, one encoder.
"""

import functools
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import torch
from torch import nn

from vivit_jax.layers.grid import token_grid
from vivit_jax.torch.layers import NUM_CHANNELS, Attentions, Encoder, EncoderBlock, Tokenizer

ONE_SEQUENCE: Attentions = (('tokens',),)
SPACE_THEN_TIME: Attentions = (('space',), ('time',))
TIME_THEN_SPACE: Attentions = (('time',), ('space',))
HEADS_SHARED: Attentions = (('time', 'space'),)


class ModelOutput(NamedTuple):
    """The result of a forward pass.

    Attributes:
        logits: [b classes], or by head where the model has several.
        features: [b d], what the classifier sees.
    """

    logits: torch.Tensor | dict[str, torch.Tensor]
    features: torch.Tensor


class ViViT(nn.Module):
    """What the four models share: tokens, encoders over them, classifier.

    Args:
        clip_shape: (t, h, w) in frames and pixels of the only clips that the model takes.
        num_classes, ...: as of `vivit_jax.models.vivit.ViViT`.

    Raises:
        ValueError: the clip does not divide into whole patches.
    """

    # Keywords with fewer choices than other models have.
    CHOICES: ClassVar[Mapping[str, tuple[str, ...]]] = {}

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
        tokenizer: str = 'tubelet',
        num_sampled_frames: int = 16,
        pool: str = 'cls',
        position: str = 'learned',
        dropout_rate: float = 0.0,
        attention_dropout_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        gelu: str = 'tanh',
        layer_norm_eps: float = 1e-6,
    ):
        super().__init__()
        self.clip_shape = tuple(clip_shape)
        self.grid = token_grid(self.clip_shape, tubelet_size, tokenizer, num_sampled_frames)
        self.tokenizer = Tokenizer(hidden_size, tubelet_size, tokenizer, num_sampled_frames)
        make_block = functools.partial(
            EncoderBlock,
            hidden_size,
            num_heads,
            mlp_dim,
            dropout_rate=dropout_rate,
            attention_dropout_rate=attention_dropout_rate,
            gelu=gelu,
            layer_norm_eps=layer_norm_eps,
        )
        self._make_encoder = functools.partial(
            Encoder,
            make_block,
            num_layers=num_layers,
            width=hidden_size,
            attentions=ONE_SEQUENCE,
            pool=pool,
            position=position,
            dropout_rate=dropout_rate,
            drop_path_rate=drop_path_rate,
            layer_norm_eps=layer_norm_eps,
        )
        # Attribute by head, '' for the only one; no ModuleDict, which takes no head called 'type'.
        self._heads = {'': 'head'}
        if isinstance(num_classes, Mapping):
            self._heads = {head: f'head_{head}' for head in num_classes}
        else:
            num_classes = {'': num_classes}
        for head, name in self._heads.items():
            self.add_module(name, _classifier(hidden_size, num_classes[head]))

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
        features = self._features(self.tokenizer(clip))
        logits = {head: getattr(self, name)(features) for head, name in self._heads.items()}
        return ModelOutput(logits.get('', logits), features)

    def _features(self, tokens: torch.Tensor) -> torch.Tensor:
        """Tokens [b t h w d] to features [b d]; each model has its own."""
        raise NotImplementedError


class Joint(ViViT):
    """Model 1: every token of the clip attends to every other.

    Source: section 3.3, model 1.
    """

    def __init__(self, clip_shape: tuple[int, int, int], **keywords):
        super().__init__(clip_shape, **keywords)
        self.encoder = self._make_encoder(grid=self.grid)

    def _features(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.encoder(tokens.flatten(1, 3))


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
        self.spatial_encoder = self._make_encoder(grid=tuple(space))
        self.temporal_encoder = None
        if temporal_num_layers:
            self.temporal_encoder = self._make_encoder(grid=(time,), num_layers=temporal_num_layers)

    def _features(self, tokens: torch.Tensor) -> torch.Tensor:
        frames = self.spatial_encoder(tokens.flatten(2, 3))
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
        self.encoder = self._make_encoder(grid=self.grid, attentions=attentions)

    def _features(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.encoder(tokens.flatten(2, 3))


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


def _classifier(width: int, num_classes: int) -> nn.Linear:
    layer = nn.Linear(width, num_classes)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
