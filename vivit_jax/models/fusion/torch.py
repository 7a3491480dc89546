"""Late fusion of RGB and depth in PyTorch: the model of `vivit_jax.models.fusion.model`."""

import math
from collections.abc import Mapping

import torch
from torch import nn

from vivit_jax.heads import map_heads
from vivit_jax.layers.specification import Specification
from vivit_jax.layers.torch.tokens import ModelOutput
from vivit_jax.models.fusion.clips import check_clips
from vivit_jax.models.registry import find_implementation


class Fusion(nn.Module):
    """Two models of one specification, named `rgb` and `depth`, which share no parameters.

    Args:
        spec: the specification of both.
        clip_shape: (t, h, w) of their clips in frames and pixels.
    """

    def __init__(self, spec: Specification, clip_shape: tuple[int, int, int]):
        super().__init__()
        self.spec = spec
        for name, stream in spec.streams.items():
            self.add_module(name, find_implementation(stream, 'torch')(stream, clip_shape))
        self.clip_shape, self.grid = self.rgb.clip_shape, self.rgb.grid

    def forward(self, clip: Mapping[str, torch.Tensor]) -> ModelOutput:
        """Classifies clips `rgb` and `depth`, each as the model for it takes clips.

        Raises:
            ValueError: the clips are not what the models take, see `check_clips`.
        """
        check_clips(clip)
        outputs = {name: model(clip[name]) for name, model in self.named_children()}
        streams = {name: output.logits for name, output in outputs.items()}
        features = torch.cat([output.features for output in outputs.values()], dim=-1)
        logits = map_heads(_FUSIONS[self.spec.fusion], *streams.values())
        return ModelOutput(logits, features, streams)


def _softmax_mean(*logits: torch.Tensor) -> torch.Tensor:
    """`log(mean(softmax(logits)))`, logits whose softmax is the mean of the probabilities."""
    log_probabilities = torch.log_softmax(torch.stack(logits), dim=-1)
    return torch.logsumexp(log_probabilities, dim=0) - math.log(len(logits))


def _logit_mean(*logits: torch.Tensor) -> torch.Tensor:
    return torch.stack(logits).mean(dim=0)


_FUSIONS = {'softmax_mean': _softmax_mean, 'logit_mean': _logit_mean}
