"""Keywords of tiny models."""

from vivit_jax.models.registry import MODELS, model_keywords

SIZES = {'hidden_size': 16, 'num_layers': 2, 'num_heads': 2, 'mlp_dim': 24, 'num_classes': 5}


def known_keywords(name, **keywords):
    """The keywords that a model has, of keywords that other models have."""
    return {key: value for key, value in keywords.items() if key in model_keywords(name)}


def tiny_keywords(name, patch, **keywords):
    """Keywords of a tiny model that draws nothing; `keywords` win.

    Its tubelets are as long as by default, and have `patch` pixels along each side.
    """
    length = model_keywords(name).get('tubelet_size', (1,))[0]
    sizes = known_keywords(name, **SIZES, tubelet_size=(length, patch, patch))
    return {**sizes, **dict.fromkeys(find_rates(name), 0.0), **MODELS[name].TINY, **keywords}


def find_rates(name):
    """The keywords that are rates of something random in training."""
    return [keyword for keyword in model_keywords(name) if keyword.endswith('_rate')]
