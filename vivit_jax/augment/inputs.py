"""From clips of recorded pixels to what a model takes."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from einops import rearrange

from vivit_jax.layers.specification import Specification
from vivit_jax.video.preprocessing import Preprocessing, normalize, normalize_depth

Clips = Mapping[str, jax.Array]


def normalize_clips(clips: Clips, preprocessing: Preprocessing) -> dict[str, jax.Array]:
    """Maps clips to the value range and colour order of the preprocessing, float32.

    Args:
        clips: `rgb` float [… 3] in [0, 1] and/or `depth` [… 1] in units of the sensor.
        preprocessing: the ranges.

    Raises:
        ValueError: there is depth, but no `depth_range`.
    """
    convert = {'rgb': normalize, 'depth': normalize_depth}
    return {kind: convert[kind](clip, preprocessing) for kind, clip in clips.items()}


def to_model_input(
    clips: Clips, preprocessing: Preprocessing, spec: Specification
) -> jax.Array | dict[str, jax.Array]:
    """The argument `clip` of a model, from normalized clips [b t h w c].

    Depth gets the number of channels that the model wants. A model that takes units gets
    [b u t h w c], where t was the frames of all units before.

    Args:
        clips: `rgb` [b t h w 3] and/or `depth` [b t h w 1], in the range of the preprocessing.
        preprocessing: says how many units the clips have.
        spec: of the model.

    Returns:
        One array, or a dict of `rgb` and `depth` if the model's modality is `rgbd`.
    """

    def fit(kind: str, stream: Specification) -> jax.Array:
        clip = clips[kind]
        if kind == 'depth':
            clip = jnp.broadcast_to(clip, (*clip.shape[:-1], stream.num_channels))
        if spec.takes_units:
            clip = rearrange(clip, 'b (u t) h w c -> b u t h w c', t=preprocessing.num_frames)
        return clip

    fitted = {kind: fit(kind, stream) for kind, stream in spec.streams.items()}
    return fitted if len(fitted) > 1 else next(iter(fitted.values()))
