"""Late fusion of RGB and depth: a model for each of the two, whose scores are averaged.

Source: Yujun Ma, Deep learning for action recognition in videos (PhD thesis, Massey University,
2024), which reports RGB+D, but does not describe the fusion.
"""

import math
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from vivit_jax.heads import map_heads
from vivit_jax.layers.specification import Specification
from vivit_jax.layers.tokens import ModelOutput
from vivit_jax.models.fusion.clips import check_clips
from vivit_jax.models.registry import find_implementation


class Fusion(nn.Module):
    """Two models of one specification, named `rgb` and `depth`, which share no parameters."""

    spec: Specification

    @nn.compact
    def __call__(
        self, clip: Mapping[str, jax.Array], train: bool = False, capture_attention: bool = False
    ) -> ModelOutput:
        """Classifies clips.

        Args:
            clip: `rgb` and `depth`, each as the model for it takes clips, of the same videos.
            train: see the models.
            capture_attention: see the models.

        Returns:
            The fused logits; the features of RGB, then of depth, [b 2·d]; intermediates and
            logits of both models by their names.

        Raises:
            ValueError: the clips are not what the models take, see `check_clips` and `find_grid`.
        """
        check_clips(clip)
        outputs = {
            name: find_implementation(stream, 'model')(stream, name=name)(
                clip[name], train, capture_attention
            )
            for name, stream in self.spec.streams.items()
        }
        streams = {name: output.logits for name, output in outputs.items()}
        return ModelOutput(
            map_heads(_FUSIONS[self.spec.fusion], *streams.values()),
            jnp.concatenate([output.features for output in outputs.values()], axis=-1),
            {name: output.intermediates for name, output in outputs.items() if capture_attention},
            streams,
        )


def _softmax_mean(*logits: jax.Array) -> jax.Array:
    """`log(mean(softmax(logits)))`, logits whose softmax is the mean of the probabilities."""
    log_probabilities = jax.nn.log_softmax(jnp.stack(logits))
    return jax.nn.logsumexp(log_probabilities, axis=0) - math.log(len(logits))


def _logit_mean(*logits: jax.Array) -> jax.Array:
    return jnp.stack(logits).mean(axis=0)


_FUSIONS = {'softmax_mean': _softmax_mean, 'logit_mean': _logit_mean}
