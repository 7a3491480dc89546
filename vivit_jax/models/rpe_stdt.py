"""RPE-STDT (Ma et al., a chapter of a thesis of 2023-24): frames by a ViT, then by importance.

A ViT with relative positions sees every frame by itself; a light temporal encoder over their class
tokens drops, twice, the half of the frames that tells least.
"""

import functools
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from vivit_jax.layers.attention import SelfAttention
from vivit_jax.layers.encoder import Encoder
from vivit_jax.layers.heads import Classes
from vivit_jax.layers.position import ClipPositionEmbedding
from vivit_jax.layers.relative_position import RelativePosition
from vivit_jax.layers.token_selection import SelectingBlock, SelectiveEncoder
from vivit_jax.layers.tokenizers import Tokenizer
from vivit_jax.models.choices import RPE_STDT_CHOICES, RPE_STDT_PRESETS, check_rpe_stdt
from vivit_jax.models.outputs import ModelOutput
from vivit_jax.models.transformer import VideoTransformer


class RpeStdt(VideoTransformer):
    """A spatial encoder for every frame, then a temporal one over their class tokens.

    `rpe_*`, `shared_heads`, `remat` and `scan_layers` are about the spatial encoder; relative
    positions of the temporal one have the defaults. The thesis speaks of 8 spatial blocks, but its
    costs and parameters are those of 12: see `stdt_l8_full` among the presets.

    Attributes:
        pos_embed: of the spatial encoder. `'rpe'`, relative positions; learned tables: `'absolute'`
            with a row for every token of the clip, or `'frame'`, a ViT's, the same for all frames;
            or `'none'`.
        rpe_terms, rpe_function, rpe_method, rpe_ratio, shared_heads: see `RelativePosition`;
            `rpe_terms='none'` is the same as `pos_embed='none'`.
        temporal: `'transformer'`, or `'none'`, the mean of the frames' class tokens.
        temporal_pos: of the temporal encoder: `'rpe'`, `'absolute'`, a learned table, or `'none'`.
        temporal_num_layers: its blocks.
        temporal_num_heads: their heads.
        temporal_head_dim: width of a head of light blocks.
        light: whether temporal blocks have MLPs as wide as the tokens, and queries, keys and values
            without bias; else they are like spatial ones.
        subsample: how layers halve the frames, see `SelectiveEncoder`.
        subsample_layers: in which temporal blocks, counted from zero.
    """

    num_classes: Classes = 101
    tubelet_size: tuple[int, int, int] = (1, 16, 16)
    pos_embed: str = 'rpe'
    rpe_terms: str = 'both'
    rpe_function: str = 'sectioned'
    rpe_method: str = 'product'
    rpe_ratio: float = 1.5
    shared_heads: bool = True
    temporal: str = 'transformer'
    temporal_pos: str = 'rpe'
    temporal_num_layers: int = 4
    temporal_num_heads: int = 8
    temporal_head_dim: int = 64
    light: bool = True
    subsample: str = 'topk'
    subsample_layers: tuple[int, ...] = (1, 3)

    CHOICES = RPE_STDT_CHOICES
    PRESETS = RPE_STDT_PRESETS

    @classmethod
    def check(cls, values: Mapping[str, object]):
        """Raises a ValueError where values of the attributes do not fit each other."""
        super().check(values)
        check_rpe_stdt(values)
        implementation = values['attention_implementation']
        is_relative = values['pos_embed'] == 'rpe' and values['rpe_terms'] != 'none'
        if is_relative and implementation not in ('auto', 'einsum'):
            raise ValueError(
                f'attention_implementation={implementation!r} has no relative positions: take '
                "'auto' or 'einsum', or another pos_embed"
            )

    @nn.compact
    def __call__(
        self, clip: jax.Array, train: bool = False, capture_attention: bool = False
    ) -> ModelOutput:
        """Classifies clips.

        Args:
            clip: float [b t h w c] in the range of the preprocessing, usually [-1, 1].
            train: switches dropout and stochastic depth on; needs the rng `dropout`.
            capture_attention: returns all attention weights, which holds them in memory.

        Raises:
            ValueError: the clip does not divide into whole patches.
        """
        tokens = Tokenizer(
            self.hidden_size,
            self.tubelet_size,
            'tubelet',
            0,
            jnp.dtype(self.dtype),
            name='embedding',
        )(clip)
        batch, time, *grid, width = tokens.shape
        tokens = self._prepend_class_token(
            tokens.reshape(batch, time, -1, width), 'cls_SpatialTransformer'
        )
        if self.pos_embed == 'absolute':
            tokens = ClipPositionEmbedding(name='posembed_input')(tokens)
        how = {'train': train, 'capture_attention': capture_attention}
        tokens, captured = self._spatial_encoder(tuple(grid))(tokens, **how)
        frames, captured = tokens[:, :, 0], {'SpatialTransformer': captured}
        if self.temporal == 'none':
            features = frames.mean(axis=1)
        else:
            tokens = self._prepend_class_token(frames, 'cls_TemporalTransformer')
            encoder = self._temporal_encoder(time)
            tokens, captured['TemporalTransformer'] = encoder(tokens, **how)
            features = tokens[:, 0]
        return self._classify(features, captured if capture_attention else {})

    def _spatial_encoder(self, grid: tuple[int, ...]) -> Encoder:
        attention = SelfAttention
        if self.pos_embed == 'rpe' and self.rpe_terms != 'none':
            relative = functools.partial(
                RelativePosition,
                grid,
                ratio=self.rpe_ratio,
                function=self.rpe_function,
                method=self.rpe_method,
                terms=self.rpe_terms,
                shared_heads=self.shared_heads,
            )
            attention = functools.partial(SelfAttention, relative=relative)
        return self._encoder(
            name='SpatialTransformer',
            grid=grid,
            position='learned' if self.pos_embed == 'frame' else 'none',
            attention=attention,
        )

    def _temporal_encoder(self, time: int) -> SelectiveEncoder:
        attention = {}
        if self.temporal_pos == 'rpe':
            attention['relative'] = functools.partial(RelativePosition, (time,))
        if self.light:
            attention |= {'head_dim': self.temporal_head_dim, 'has_bias': False}
        block = self._block_maker(
            SelectingBlock,
            num_heads=self.temporal_num_heads,
            mlp_dim=self.hidden_size if self.light else self.mlp_dim,
            attention=functools.partial(SelfAttention, **attention),
            attention_implementation='einsum',  # for a token per frame
        )
        return SelectiveEncoder(
            block,
            num_layers=self.temporal_num_layers,
            grid=(time,),
            position='learned' if self.temporal_pos == 'absolute' else 'none',
            dropout_rate=self.dropout_rate,
            drop_path_rate=self.drop_path_rate,
            subsample=self.subsample,
            subsample_layers=self.subsample_layers,
            name='TemporalTransformer',
        )
