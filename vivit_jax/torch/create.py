"""Makes a PyTorch model from its name."""

from torch import nn

from vivit_jax.models.registry import find_implementation, specify


def create_model(
    name: str, size: str | None = None, *, clip_shape: tuple[int, int, int], **keywords
) -> nn.Module:
    """Makes a model; fresh parameters have the same distributions as in the JAX models.

    >>> model = create_model('vivit_fe', size='S/16x2', clip_shape=(32, 224, 224), num_classes=51)

    Args:
        name: one of `list_models()`.
        size: `'B/16x2'` style preset, or one of the model's own `PRESETS`; explicit keywords win.
        clip_shape: (t, h, w) of the clips in frames and pixels.
        **keywords: keywords of `vivit_jax.create_model`; the ones that control how JAX computes,
            such as `remat`, have no effect.

    Raises:
        ValueError: unknown name, keyword or choice, or sizes that do not fit each other.
    """
    spec = specify(name, size, **keywords)
    return find_implementation(spec, 'torch')(spec, clip_shape)
