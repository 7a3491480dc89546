"""ViViT in PyTorch: the four models of `vivit_jax.models.vivit.model`."""

import functools

import torch
from einops import rearrange

from vivit_jax.layers.grid import uniform_frame_indices
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
        """An encoder that ends in its class token, or in the mean over its tokens."""
        spec = self.spec
        keywords = {'pool': spec.pool, 'has_pre_norm': spec.pre_norm, **keywords}
        return Encoder(spec, grid, spec.position, **keywords)


class Joint(ViViT):
    """Model 1: every token of the clip attends to every other. Source: section 3.3, model 1."""

    def __init__(self, spec: specification.Joint, clip_shape: tuple[int, int, int]):
        super().__init__(spec, clip_shape)
        self.encoder = self.make_encoder(self.grid)

    def encode_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.encoder(rearrange(tokens, 'b t n d -> b (t n) d'))


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

    def encode_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        frames = self.spatial_encoder(tokens)
        if self.temporal_encoder is None:
            return frames.mean(dim=1)
        return self.temporal_encoder(frames)


class _OneEncoder(ViViT):
    """Base class of models 3 and 4: one encoder, whose blocks distinguish space and time."""

    def __init__(self, spec: specification.ViViT, clip_shape: tuple[int, int, int], block):
        super().__init__(spec, clip_shape)
        self.encoder = self.make_encoder(self.grid, token_axes=2, block=block)

    def encode_tokens(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.encoder(tokens)


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
