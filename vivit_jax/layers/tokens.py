"""The parts of a model around its encoders: from a clip to tokens, and from features to logits."""

import math
from collections.abc import Mapping

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax.typing import DTypeLike

from vivit_jax.layers.grid import sincos_positions
from vivit_jax.layers.linear import project
from vivit_jax.layers.specification import Specification


@flax.struct.dataclass
class ModelOutput:
    """The result of a forward pass, float32.

    Attributes:
        logits: [b classes], or a dict by head if the model has several heads.
        features: [b d], the input of the classifier.
        intermediates: with `capture_attention=True`, the attention weights under the names of
            their layers, see `SelfAttention`; else empty.
        streams: of a model that sees RGB and depth, the logits of each of the two; else empty.
    """

    logits: jax.Array | Mapping[str, jax.Array]
    features: jax.Array
    intermediates: Mapping = flax.struct.field(default_factory=dict)
    streams: Mapping = flax.struct.field(default_factory=dict)


def find_grid(spec: Specification, clip: jax.Array) -> tuple[int, int, int]:
    """Places along time, height and width of float clips [b t h w c], or [b u t h w c] of units.

    Raises:
        ValueError: the shape or the type is another, or clips do not divide into whole tubelets.
    """
    if clip.ndim != 5 and not (clip.ndim == 6 and spec.takes_units):
        hint = {
            4: ', so that the batch is missing: clip[None] adds it',
            6: '; [b u t h w c] is for models of several units',
        }
        raise ValueError(
            f'a model takes clips [b t h w c]; this array is {list(clip.shape)}'
            f'{hint.get(clip.ndim, "")}'
        )
    if clip.shape[-1] != spec.num_channels:
        raise ValueError(
            f'a model of modality={spec.modality!r} takes clips of {spec.num_channels} channels; '
            f'this array is {list(clip.shape)}'
        )
    if not jnp.issubdtype(clip.dtype, jnp.floating):
        raise ValueError(
            f'a model takes float clips in the value_range of the preprocessing, not {clip.dtype}: '
            'vivit_jax.evaluation.forward.create_forward(model, preprocessing) takes uint8 pixels'
        )
    return spec.grid(clip.shape[1:-1])


class Tokenizer(nn.Module):
    """Linear projection of non-overlapping patches: a convolution whose stride is its kernel.

    A patch is (t, h, w) frames and pixels, or (h, w) pixels of a frame. The parameters are
    `<name>/kernel` [*patch c d] and `<name>/bias` [d].

    Source: ViViT (arXiv 2103.15691), section 3.2 and figures 2 and 3.
    """

    hidden_size: int
    patch_size: tuple[int, ...]
    dtype: DTypeLike = 'float32'

    @nn.compact
    def __call__(self, clip: jax.Array) -> jax.Array:
        """Maps a float clip [b t h w c], of whole patches, to tokens [b t' h' w' d]."""
        shape = (*self.patch_size, clip.shape[-1], self.hidden_size)
        # All but the last axis are inputs, so that Xavier counts the fans of the kernel's matrix.
        init = nn.initializers.xavier_uniform(in_axis=range(len(shape) - 1))
        kernel = self.param('kernel', init, shape).astype(self.dtype)
        bias = self.param('bias', nn.initializers.zeros, (self.hidden_size,)).astype(self.dtype)
        time, height, width = (1, 1, *self.patch_size)[-3:]
        patches = rearrange(
            clip.astype(self.dtype),
            'b (t pt) (h ph) (w pw) c -> b t h w (pt ph pw c)',
            pt=time,
            ph=height,
            pw=width,
        )
        return project(patches, kernel.reshape(-1, self.hidden_size)) + bias


class PositionEmbedding(nn.Module):
    """Adds positions to tokens [... n d] or [... t n d].

    Attributes:
        kind: `'learned'`, a table [1 n d] or [1 t·n d] in `<name>/pos_embedding`, `'sincos3d'`, or
            `'none'`.
        grid: the number of places along each axis. Class tokens stand before the other tokens and
            have no place; `'sincos3d'` adds zero to them.
        token_axes: how many axes of the tokens have positions: 1 for n, 2 for t and n.
    """

    kind: str
    grid: tuple[int, ...]
    token_axes: int = 1

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        *places, width = tokens.shape[-1 - self.token_axes :]
        num_tokens = math.prod(places)
        if self.kind == 'none':
            return tokens
        if self.kind == 'sincos3d':
            before = num_tokens - math.prod(self.grid)
            table = np.pad(sincos_positions(self.grid, width), ((before, 0), (0, 0)))
        else:
            self._check_table(num_tokens)
            init = nn.initializers.normal(0.02)  # from BERT
            table = self.param('pos_embedding', init, (1, num_tokens, width))
        return tokens + jnp.asarray(table, tokens.dtype).reshape(*places, width)

    def _check_table(self, num_tokens: int):
        table = self.get_variable('params', 'pos_embedding')
        if table is not None and table.shape[1] != num_tokens:
            raise ValueError(
                f'{"/".join(self.path)} has learned positions for {table.shape[1]} tokens, and '
                f'these clips have {num_tokens}: give clips with the frames and pixels of the '
                'preprocessing that the model was trained with, or start a training from the '
                'weights with init_from, which resizes positions'
            )


def prepend_class_token(model: nn.Module, tokens: jax.Array, name: str = 'cls') -> jax.Array:
    """Tokens [b ... n d] to [b ... 1+n d]; the first is the model's parameter `name` [1 1 d]."""
    *leading, _, width = tokens.shape
    token = model.param(name, nn.initializers.zeros, (1, 1, width)).astype(tokens.dtype)
    token = jnp.broadcast_to(token.reshape(-1), (*leading, 1, width))
    return jnp.concatenate([token, tokens], axis=-2)


def classify(
    features: jax.Array, num_classes: int | Mapping[str, int], captured: Mapping = {}
) -> ModelOutput:
    """Linear classifiers on features [b d]; call it within a model's compact method.

    The parameters are called `output_projection`, or `output_projection_<head>` if `num_classes`
    is a dict of several heads. They start at zero.

    Args:
        features: [b d], of any float type.
        num_classes: number of classes, or a dict head -> number.
        captured: attention weights by encoder.
    """
    features = features.astype(jnp.float32)

    def project_to(classes: int, suffix: str = '') -> jax.Array:
        name = f'output_projection{suffix}'
        return nn.Dense(classes, kernel_init=nn.initializers.zeros, name=name)(features)

    if isinstance(num_classes, Mapping):
        logits = {head: project_to(count, f'_{head}') for head, count in num_classes.items()}
    else:
        logits = project_to(num_classes)
    return ModelOutput(logits, features, {name: x for name, x in captured.items() if x})
