"""Checks clips of RGB and depth; imports neither JAX nor PyTorch, because both forms use it."""

from collections.abc import Mapping


def check_clips(clip: Mapping):
    """Checks clips of RGB and depth, arrays or tensors [b t h w c] whose channels may differ.

    Raises:
        ValueError: there is no dict of both, or their shapes do not fit each other.
    """
    if not isinstance(clip, Mapping):
        raise ValueError(
            "a model of modality='rgbd' takes a dict {'rgb': clips, 'depth': clips}, and not "
            f'{type(clip).__name__}'
        )
    if clip.keys() != {'rgb', 'depth'}:
        raise ValueError(
            "a model of modality='rgbd' takes a dict {'rgb': clips, 'depth': clips}; this dict "
            f'has the keys {sorted(clip)}'
        )
    rgb, depth = (tuple(clip[name].shape) for name in ('rgb', 'depth'))
    if rgb[:-1] != depth[:-1]:
        raise ValueError(
            f'the clips of RGB, {list(rgb)}, and of depth, {list(depth)}, must have the same '
            'number, frames, height and width'
        )
