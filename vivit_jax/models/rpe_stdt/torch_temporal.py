"""The temporal encoder of RPE-STDT in PyTorch, in which some blocks halve the number of frames.

Source: Yujun Ma, Deep learning for action recognition in videos (PhD thesis, Massey University,
2024), chapter 3; below, "Ma 2024".
"""

import functools

import torch
import torch.nn.functional as F
from torch import nn

from vivit_jax.layers.torch.convolution import Convolution
from vivit_jax.layers.torch.transformer import Encoder, EncoderBlock, SelfAttention
from vivit_jax.models.rpe_stdt import specification
from vivit_jax.models.rpe_stdt.torch_relative_position import RelativePosition

_POOLINGS = {'max': F.max_pool1d, 'avg': F.avg_pool1d}


class TemporalBlock(EncoderBlock):
    """A block that can drop, after its attention, the frames that attend least selectively.

    Attributes:
        selects: whether the block drops frames; see `select_frames`.
    """

    selects = False

    def forward(
        self, tokens: torch.Tensor, places: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps tokens [b 1+t d] and their places, int [b 1+t], to as many of both or fewer."""
        seen = self.attention_norm(tokens)
        mixed = tokens + self.drop_path(self.dropout(self.attention(seen, places)))
        if self.selects:
            with torch.no_grad():
                weights = self.attention.weights(seen, places)
            # Frames are dropped after attention, so that the kept frames attended to all frames.
            mixed, places = select_frames(mixed, places, weights)
        return self.add(self.mlp_norm, self.mlp, mixed), places


class TemporalEncoder(Encoder):
    """An encoder of `TemporalBlock` for a class token and frames, [b 1+t d].

    The blocks in `subsample_layers` reduce t frames to ⌈t/2⌉: `'topk'` selects frames within the
    block, see `select_frames`; `'max'` and `'avg'` pool pairs before the block; `'conv'` is a
    convolution of stride 2 before the block.
    """

    def __init__(self, spec: specification.RpeStdt, num_frames: int):
        is_relative = spec.temporal_pos == 'rpe'
        attention = functools.partial(
            SelfAttention,
            num_heads=spec.temporal_num_heads,
            relative=functools.partial(RelativePosition, (num_frames,)) if is_relative else None,
            head_dim=spec.temporal_head_dim if spec.light else None,
            has_bias=not spec.light,
        )
        super().__init__(
            spec,
            (num_frames,),
            'learned' if spec.temporal_pos == 'absolute' else 'none',
            block=functools.partial(
                TemporalBlock,
                attention=attention,
                mlp_dim=spec.hidden_size if spec.light else spec.mlp_dim,
            ),
            num_layers=spec.temporal_num_layers,
            pool='cls',
        )
        self.subsample, self.subsample_layers = spec.subsample, spec.subsample_layers
        for layer in self.subsample_layers if spec.subsample != 'none' else ():
            self.blocks[layer].selects = spec.subsample == 'topk'
            if spec.subsample == 'conv':
                width = spec.hidden_size
                convolution = Convolution(
                    width, width, (3,), stride=2, init=nn.init.xavier_uniform_
                )
                self.add_module(f'subsample_{layer}', convolution)

    def run_blocks(self, tokens: torch.Tensor) -> torch.Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device).expand(tokens.shape[:2])
        for layer, block in enumerate(self.blocks):
            if layer in self.subsample_layers and self.subsample in ('max', 'avg', 'conv'):
                tokens = torch.cat([tokens[:, :1], self._pool(tokens[:, 1:], layer)], dim=1)
                # A pair takes the place of its first frame.
                places = torch.cat([places[:, :1], places[:, 1::2]], dim=1)
            tokens, places = block(tokens, places)
        return tokens

    def _pool(self, frames: torch.Tensor, layer: int) -> torch.Tensor:
        """Frames [b t d] to [b ⌈t/2⌉ d]; if t is odd, the last frame is pooled alone."""
        if self.subsample == 'conv':
            return getattr(self, f'subsample_{layer}')(frames)
        return _POOLINGS[self.subsample](frames.mT, 2, ceil_mode=True).mT


def select_frames(
    tokens: torch.Tensor, places: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Keeps the class token and the half of the frames that attend most selectively.

    A frame i attends selectively if its attention to the frames j varies much:
    `σ_i = std_j(mean over heads of A[i, j])`, without the column of the class token. Of t frames
    the ⌈t/2⌉ with the largest σ stay, in their order.

    Source: Ma 2024, equation 3.13, whose factor 1/t·√ does not change the order.

    Args:
        tokens: [b 1+t d], the class token first.
        places: int [b 1+t], the positions of the tokens in the whole sequence.
        weights: [b k 1+t 1+t], attention weights that add up to 1 along the last axis.

    Returns:
        Tokens [b 1+⌈t/2⌉ d] and places [b 1+⌈t/2⌉].
    """
    # The variance gives the same order as the standard deviation; of equal frames the first stays.
    spread = weights.mean(dim=1)[:, 1:, 1:].var(dim=-1, correction=0)
    order = spread.argsort(dim=1, descending=True, stable=True)
    kept = order[:, : (spread.shape[1] + 1) // 2].sort(dim=1).values
    rows = F.pad(kept + 1, (1, 0))
    return (
        tokens.gather(1, rows[:, :, None].expand(-1, -1, tokens.shape[-1])),
        places.gather(1, rows),
    )
