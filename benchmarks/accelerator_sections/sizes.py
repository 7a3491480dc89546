"""Sizes of clips and models in a real run and in a tiny run."""

from collections.abc import Iterable

from accelerator_sections.plan import Settings

_FRAMES = {'convivit': 16, 'rpe_stdt': 16, 'ctn': 8}  # of published recipes; ViViT's have 32

_TINY = {
    'num_classes': 8,
    'hidden_size': 16,
    'num_layers': 1,
    'num_heads': 2,
    'mlp_dim': 32,
    'temporal_num_layers': 1,
    'temporal_num_heads': 2,
    'temporal_head_dim': 8,
    'subsample_layers': (0,),
    'cnn_channels': 4,
    'stem_channels': 4,
}


def clip_shape(settings: Settings, model: str) -> tuple[int, int, int]:
    """(t, h, w) of a model's clip in frames and pixels."""
    return (8, 32, 32) if settings.tiny else (_FRAMES.get(model, 32), 224, 224)


def tiny_keywords(known: Iterable[str], tubelet_size: tuple[int, int, int]) -> dict[str, object]:
    """Small values for the keywords that a model has; the length of its tubelets stays."""
    keywords = {name: value for name, value in _TINY.items() if name in known}
    return {**keywords, 'tubelet_size': (tubelet_size[0], 8, 8)}
