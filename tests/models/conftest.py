"""Tiny models and their inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_models import SIZES, find_rates, known_keywords

from vivit_jax.models.registry import MODELS, create_model


@pytest.fixture(scope='session')
def create_tiny():
    """Makes a small model by its name."""

    def create(name, **keywords):
        length = 1 if keywords.get('tokenizer') == 'uniform_frames' else 2
        defaults = known_keywords(name, **SIZES, tubelet_size=(length, 8, 8))
        defaults |= {**dict.fromkeys(find_rates(name), 0.0), **MODELS[name].TINY}
        return create_model(name, **{**defaults, **keywords})

    return create


@pytest.fixture(scope='session')
def random_clip():
    """Makes a clip; with tubelets, the default has a grid of 2 x 2 x 2."""

    def create(shape=(2, 4, 16, 16, 3), seed=0):
        return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, shape), jnp.float32)

    return create


@pytest.fixture(scope='session')
def random_variables(random_params, variable_shapes):
    """Makes parameters as `random_params` does, and running statistics of batches."""

    def make(model, *inputs, scale=0.4):
        shapes = variable_shapes(model, *inputs)
        rng = np.random.default_rng(1)
        return {
            'params': random_params(model, *inputs, scale=scale),
            'batch_stats': jax.tree.map(
                lambda x: rng.uniform(0.5, 1.5, x.shape).astype(np.float32),
                shapes.get('batch_stats', {}),
            ),
        }

    return make


@pytest.fixture(scope='session')
def dropout_key():
    """Makes a key whose random numbers compile faster than the default generator."""
    return lambda seed=0: jax.random.key(seed, impl='rbg')


@pytest.fixture(scope='session')
def encoder_tokens():
    """Runs a model; returns the output of its first encoder."""

    def run(model, params, clip, key=None):
        _, state = model.apply(
            {'params': params},
            clip,
            train=key is not None,
            rngs=None if key is None else {'dropout': key},
            capture_intermediates=lambda module, _: module.name == _encoder_name(model),
        )
        return state['intermediates'][_encoder_name(model)]['__call__'][0][0]

    return run


def _encoder_name(model):
    is_fe = type(model).__name__ == 'FactorizedEncoder'
    return 'SpatialTransformer' if is_fe else 'Transformer'
