"""Sizes of clips and models in a real run and in a tiny run."""

from accelerator_sections.plan import Settings
from vivit_jax.models.registry import MODELS, model_keywords

# Of published recipes; the ViViTs have 32.
_FRAMES = {
    'convivit': 16,
    'rpe_stdt': 16,
    'ctn': 8,
    'f4d': 8,
    'v4d': 8,
}

_TINY = {'num_classes': 8, 'hidden_size': 16, 'num_layers': 1, 'num_heads': 2, 'mlp_dim': 32}


def clip_shape(settings: Settings, model: str) -> tuple[int, int, int]:
    """(t, h, w) of a model's clip in frames and pixels."""
    return (8, 32, 32) if settings.tiny else (_FRAMES.get(model, 32), 224, 224)


def tiny_keywords(model: str) -> dict[str, object]:
    """Small values for the keywords that a model has; the length of its tubelets stays."""
    known = model_keywords(model)
    keywords = {name: value for name, value in _TINY.items() if name in known}
    if 'tubelet_size' in known:
        keywords['tubelet_size'] = (known['tubelet_size'][0], 8, 8)
    return {**keywords, **MODELS[model].TINY}
