"""ViViT in PyTorch: the four models of `vivit_jax.models.vivit.model`."""

import functools

import torch
from einops import rearrange

from vivit_jax.layers.grid import uniform_frame_indices
from vivit_jax.layers.torch.pooling import AttentionPool, pool_changes
from vivit_jax.layers.torch.tokens import Tokenizer, VideoModel
from vivit_jax.layers.torch.transformer import Encoder, EncoderBlock
from vivit_jax.models.vivit import specification


class ViViT(VideoModel):
    """Tokenizer and encoders; each of the four models has its own `encode_tokens`."""

    def __init__(self, spec: specification.ViViT, clip_shape: tuple[int, int, int]):
        super().__init__(spec, clip_shape)
        self.frames = slice(None)
        if spec.tokenizer == 'uniform_frames':  # here, since NumPy cannot be traced or compiled
            frames = uniform_frame_indices(self.clip_shape[0], spec.num_sampled_frames)
            self.frames = frames.tolist()
        self.tokenizer = Tokenizer(spec.hidden_size, spec.patch_size, spec.num_channels)

    def encode(self, clip: torch.Tensor) -> torch.Tensor:
        tokens = self.tokenizer(clip[:, self.frames])
        return self.encode_tokens(rearrange(tokens, 'b t h w d -> b t (h w) d'))

    def encode_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        """Maps tokens [b t n d] to features [b d]."""
        raise NotImplementedError

    def make_encoder(self, grid: tuple[int, ...], **keywords) -> Encoder:
        """An encoder that returns all tokens, the class token, if there is one, before others."""
        spec = self.spec
        keywords = {'has_pre_norm': spec.pre_norm, **keywords}
        return Encoder(
            spec, grid, spec.position, pool='none', has_class_token=spec.has_class_token, **keywords
        )

    def make_pool(self):
        """Makes what `pool` needs; call it last, so that names keep their order."""
        if self.spec.pool.endswith('attention'):
            self.attention_pool = AttentionPool(self.spec, self.grid[0])

    def pool(self, tokens: torch.Tensor) -> torch.Tensor:
        """Maps the last encoder's tokens, [b n d] or [b t n d], to features [b d]."""
        if not self.spec.pool.endswith('attention'):
            return summarize(tokens, self.spec.pool, tokens.ndim - 2)
        places = tokens[:, int(self.spec.has_class_token) :]
        return self.attention_pool(places.reshape(len(tokens), self.grid[0], -1, tokens.shape[-1]))


def summarize(tokens: torch.Tensor, pool: str, num_axes: int = 1) -> torch.Tensor:
    """Pools tokens [b ... n d] to [b ... d]; with two axes, [b t n d] to [b d]."""
    if pool == 'cls':
        return tokens[..., 0, :]
    if pool == 'cls_mean':
        return torch.cat([tokens[..., 0, :], tokens[..., 1:, :].mean(-2)], dim=-1)
    return tokens.mean(tuple(range(-1 - num_axes, -1)))


class Joint(ViViT):
    """Model 1: every token of the clip attends to every other. Source: section 3.3, model 1."""

    def __init__(self, spec: specification.Joint, clip_shape: tuple[int, int, int]):
        super().__init__(spec, clip_shape)
        self.encoder = self.make_encoder(self.grid)
        self.make_pool()

    def encode_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.pool(self.encoder(rearrange(tokens, 'b t n d -> b (t n) d')))


class FactorizedEncoder(ViViT):
    """Model 2: a spatial encoder for every time index, then a temporal one over their summaries.

    Source: section 3.3, model 2; `temporal_num_layers=0` is the frame-average baseline of table 4.
    """

    def __init__(self, spec: specification.FactorizedEncoder, clip_shape: tuple[int, int, int]):
        super().__init__(spec, clip_shape)
        time, *space = self.grid
        self.spatial_encoder = self.make_encoder(tuple(space))
        self.temporal_encoder = None
        if spec.temporal_num_layers:
            self.temporal_encoder = self.make_encoder((time,), num_layers=spec.temporal_num_layers)
        self.make_pool()

    def encode_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        spec, tokens = self.spec, self.spatial_encoder(tokens)
        if self.temporal_encoder is None:
            if spec.pool.endswith('attention'):
                return self.attention_pool(tokens)
            if spec.frame_pool == 'change':
                return pool_changes(tokens[:, :, int(spec.has_class_token) :], self.grid[1:])
            frames = summarize(tokens, spec.pool)
            return frames.flatten(1) if spec.frame_pool == 'concat' else frames.mean(dim=1)
        frames = summarize(tokens, 'cls' if spec.has_class_token else 'mean')
        return self.pool(self.temporal_encoder(frames))


class _OneEncoder(ViViT):
    """Base class of models 3 and 4: one encoder, whose blocks distinguish space and time."""

    def __init__(self, spec: specification.ViViT, clip_shape: tuple[int, int, int], block):
        super().__init__(spec, clip_shape)
        self.encoder = self.make_encoder(self.grid, token_axes=2, block=block)
        self.make_pool()

    def encode_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.pool(self.encoder(tokens))


def FactorizedSelfAttentionBlock(
    spec: specification.ViViT, rate: float, order: tuple[str, ...] = ('space', 'time')
) -> EncoderBlock:
    """`x' = x + MSA_space(LN(x))`, `y = x' + MSA_time(LN(x'))`, `z = y + MLP(LN(y))`; [b t n d]."""
    return EncoderBlock(spec, rate, {f'{axis}_attention': (axis,) for axis in order})


class FactorizedSelfAttention(_OneEncoder):
    """Model 3: in every block, attention along space, then another attention along time.

    Source: section 3.3, model 3.
    """

    def __init__(
        self, spec: specification.FactorizedSelfAttention, clip_shape: tuple[int, int, int]
    ):
        order = tuple(spec.attention_order.split('_'))
        block = functools.partial(FactorizedSelfAttentionBlock, order=order)
        super().__init__(spec, clip_shape, block)


# Half of the heads attend along time, the other half along space.
FactorizedDotProductBlock = functools.partial(
    EncoderBlock, attentions={'attention': ('time', 'space')}
)


class FactorizedDotProduct(_OneEncoder):
    """Model 4: in every block, half of the heads attend along time, the other half along space.

    Source: section 3.3, model 4, with time first, as in the original implementation and its
    checkpoints (the paper writes space first).
    """

    def __init__(self, spec: specification.FactorizedDotProduct, clip_shape: tuple[int, int, int]):
        super().__init__(spec, clip_shape, FactorizedDotProductBlock)
